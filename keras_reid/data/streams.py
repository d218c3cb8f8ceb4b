"""Frames of cameras and live streams, with reconnection."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from absl import logging

from keras_reid import checks
from keras_reid.data.video import ADDRESS, Video
from keras_reid.errors import InputError, Shown, counted, invalid
from keras_reid.names import StrPath

TIMEOUT = 10_000  # milliseconds until a silent server counts as lost
LONGEST_WAIT = 30.0  # seconds between two attempts to reconnect


class StreamLost(InputError):
    """Error: a stream that had frames ended, and could not be opened again."""


class Stream:
    """Frames of a camera or a live stream, which are read once.

    Iterating yields uint8 RGB images (h, w, 3). If reading fails, the source is opened again, up to
    `max_reconnects` times in a row, after 1, 2, 4, … seconds. Times are those of arrival, because
    many servers send no times.

    Args:
        source: index of a camera of this computer, or an address such as `"rtsp://…"`, which OpenCV
            opens.
        max_reconnects: number of attempts to open a lost stream again.

    Raises:
        InputError: no OpenCV (extra `tracking`), or a source that cannot be opened.
        StreamLost: while the frames are read, if the stream could not be opened again.
    """

    count = None  # unlimited

    def __init__(self, source: int | str, max_reconnects: int = 5) -> None:
        checks.at_least(0, max_reconnects=max_reconnects)
        self.source, self.max_reconnects = source, max_reconnects
        self._first: np.ndarray | None = None
        self._capture = self._opened()
        if self._capture is None:
            raise self._unreadable()

    @property
    def name(self) -> str:
        """Address, or `camera INDEX`."""
        return self.source if isinstance(self.source, str) else f"camera {self.source}"

    @property
    def rate(self) -> float | None:
        """Frames per second that the source states; None if it states none.

        MJPEG over HTTP has no rate, and OpenCV returns 25 for it.
        """
        import cv2

        is_http = isinstance(self.source, str) and self.source.lower().startswith("http")
        if is_http and self._capture.get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter.fourcc(*"MJPG"):
            return None
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        return rate if 0 < rate < float("inf") else None

    @property
    def is_live(self) -> bool:
        """True for a source without an end; False for a recording on a server."""
        import cv2

        capture = self._capture
        return not isinstance(self.source, str) or capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame in pixels.

        Raises:
            InputError: the source has no frame.
        """
        if self._first is None:
            good, self._first = self._capture.read()
            if not good:
                raise self._unreadable()
        assert self._first is not None
        height, width = self._first.shape[:2]
        return width, height

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for _, frame in self.timed())

    def timed(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the seconds after the first frame, and the frame, until the stream is lost.

        Raises:
            InputError: the source has no frame.
            StreamLost: the stream could not be opened again.
        """
        _ = self.size
        start = time.monotonic()
        try:
            while True:
                frame, self._first = self._first, None
                if frame is None:
                    good, frame = self._capture.read()
                    if not good:
                        self._reconnect()
                        continue
                yield time.monotonic() - start, frame[:, :, ::-1]
        finally:
            self.close()

    def close(self) -> None:
        """Close the source."""
        self._capture.release()

    def _reconnect(self) -> None:
        """Open the source again and read a frame; raise if all attempts fail."""
        for attempt in range(self.max_reconnects):
            wait = min(2.0**attempt, LONGEST_WAIT)
            logging.warning("%s is lost; next attempt in %g s", self.name, wait)
            self._capture.release()
            time.sleep(wait)
            capture = self._opened()
            if capture is not None:
                self._capture = capture
                good, self._first = capture.read()
                if good:
                    return
        raise StreamLost(
            f"`source` must send frames until it is interrupted, got none from {self.name} after "
            f"{counted(self.max_reconnects, 'attempt')} to reconnect. Check the source.",
            "source",
        )

    def _opened(self) -> Any:
        """Return OpenCV's reader; None if the source cannot be opened."""
        cv2 = checks.installed("cv2", "tracking")
        with _silence(cv2):
            if isinstance(self.source, str):
                limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT]
                limits += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT]
                capture = cv2.VideoCapture(self.source, cv2.CAP_FFMPEG, limits)
            else:
                capture = cv2.VideoCapture(self.source)
            return capture if capture.isOpened() else None

    def _unreadable(self) -> InputError:
        if isinstance(self.source, str):
            received, fix = self.source, "Check the address, and whether the server runs."
        else:
            received, fix = f"camera index {self.source}", "The first camera has index 0."
        return invalid("source", "a video that OpenCV reads", Shown(received), fix)


def open_video(source: StrPath, max_reconnects: int = 5) -> Video | Stream:
    """Return the frames of a file, a folder, an address, or a camera by its index.

    Args:
        source: source of a `Video` or a `Stream`; digits are the index of a camera, unless they
            are the name of a file or folder.
        max_reconnects: see `Stream`.

    Raises:
        InputError: see `Video` and `Stream`.
    """
    text = os.fspath(source)
    if text.isdecimal() and not os.path.exists(text):
        return Stream(int(text), max_reconnects)
    if not ADDRESS.match(text):
        return Video(source)
    stream = Stream(text, max_reconnects)
    if stream.is_live:
        return stream
    stream.close()
    return Video(source)


@contextmanager
def _silence(cv2: Any) -> Iterator[None]:
    """Suppress the log of OpenCV, which prints several lines for a source that is missing."""
    log = cv2.utils.logging
    before = log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(before)
