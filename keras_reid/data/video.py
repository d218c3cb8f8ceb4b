"""Frames of videos and their times."""

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from keras_reid import checks
from keras_reid.data.readers.layouts import contents, is_image
from keras_reid.errors import InputError, Shown, invalid, invalid_file
from keras_reid.names import StrPath, expanded
from keras_reid.pixels import decode

MOST_LOST = 0.1  # fraction of the frames
COUNTED = (".avi", ".m4v", ".mov", ".mp4")  # containers with a number of frames
DEFAULT_RATE = 25.0  # frames per second of files without a rate
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # begins rtsp://… and https://…

Frame = tuple[float, np.ndarray | None]  # seconds, or NaN; the frame, or None if it is damaged


class Video:
    """Frames of a video file, an image, a folder of images in natural order, or a remote recording.

    Iterating yields uint8 RGB images (h, w, 3), upright by the rotation in the file. A damaged
    frame is replaced by the frame before it, so that all frames keep their numbers. The first
    complete pass logs the number of damaged frames.

    Args:
        source: the file or folder, or an address such as `"https://…"` or `"rtsp://…"`, which
            OpenCV opens. The frames are read several times, so live streams are not accepted; see
            `keras_reid.data.Stream`.

    Raises:
        InputError: a missing file, or a folder without images; while the frames are read: no OpenCV
            (extra `tracking`), no frame, a live stream, or more than 10 % of the container's frames
            damaged or missing.
    """

    def __init__(self, source: StrPath) -> None:
        self.path: Path | str
        self._files: list[Path] = []
        self._seconds: np.ndarray | None = None
        self._encoded: list[float] | None = None  # seconds of the encoded frames
        self._remote = bool(ADDRESS.match(os.fspath(source)))
        if self._remote:
            self.path = os.fspath(source)  # a Path replaces two slashes by one
            return
        self.path = path = expanded(source)
        if path.is_dir():
            self._files = contents(path).images
        elif is_image(path) and path.suffix.lower() != ".gif" and path.is_file():
            self._files = [path]
        if not self._files and not path.is_file():
            rule, fix = "be a video, an image or a folder of images", "Check the path."
            raise invalid_file(path, rule, "neither", fix)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (frame for _, frame in self.timed())

    @property
    def count(self) -> int:
        """Number of frames, including damaged ones.

        Raises:
            InputError: the frames cannot be read.
        """
        packets = [] if self._files else self._packets()
        return len(self._files) or max(len(packets), self._announced(packets))

    def timed(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the seconds after the first frame, and the frame.

        Seconds increase. A frame without a valid time is a mean interval after the frame before it;
        `times` has better estimates after a complete pass.

        Raises:
            InputError: see `Video`.
        """
        first, last, step = None, 0.0, 0.0
        for second, frame in self._timed():
            if first is None:
                first = last = second if np.isfinite(second) else 0.0
                step = 1 / (self.rate or DEFAULT_RATE)
            else:
                last = second if second > last else last + step
            yield last - first, frame

    def _timed(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield the seconds of the container, or NaN, and the frame."""
        packets = [] if self._files else self._packets()
        total = self.count
        lost = total - len(self._files or packets)
        self._check(lost, total)
        seconds: list[float] = []
        before: np.ndarray | None = None
        for second, frame in self._of_folder() if self._files else self._of_file(packets):
            damaged = len(seconds)
            seconds.append(second)
            if frame is None:
                lost += 1
                self._check(lost, total)
                if before is not None:
                    yield second, before
                continue
            if before is None:
                yield from zip(seconds[:damaged], repeat(frame))
            yield second, frame
            before = frame
        if before is None:
            raise self._unreadable()
        if lost and self._seconds is None:
            logging.warning(
                "%d of %d frames of %s are damaged or missing; a damaged frame is replaced by the "
                "frame before it",
                *(lost, total, self.path),
            )
        self._seconds = np.array(seconds)

    def _check(self, lost: int, total: int) -> None:
        if lost > MOST_LOST * total:
            rule = f"a video with at most {MOST_LOST:.0%} damaged or missing frames"
            received = Shown(f"{lost} of {total} or more in {self.path}")
            fix = "Restore it, or extract the readable frames to a folder."
            raise invalid("source", rule, received, fix)

    def _unreadable(self) -> InputError:
        fix = "Check the name, or extract the frames to a folder."
        return invalid("source", "a video that OpenCV reads", Shown(self.path), fix)

    @property
    def name(self) -> str:
        """Absolute path, or the address."""
        return str(self.path) if self._remote else str(Path(self.path).resolve())

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the first frame in pixels.

        Raises:
            InputError: the frames cannot be read.
        """
        height, width = next(iter(self)).shape[:2]
        return width, height

    @property
    def rate(self) -> float | None:
        """Mean number of frames per second; None for a folder, or if the file does not state it."""
        if self._files:
            return None
        with self._capture() as (cv2, capture):
            rate = float(capture.get(cv2.CAP_PROP_FPS))
        return rate if 0 < rate < float("inf") else None

    @property
    def times(self) -> np.ndarray | None:
        """Seconds (n,) from the first frame to each frame; None for a folder.

        Each pass over the frames records the times. If there was no pass, the frames are read.
        """
        if self._files:
            return None
        if self._seconds is None:
            deque(self, maxlen=0)
        assert self._seconds is not None
        return _filled(self._seconds, 1 / (self.rate or DEFAULT_RATE))

    def _of_folder(self) -> Iterator[Frame]:
        for file in self._files:
            try:
                yield np.nan, decode(file)
            except InputError:
                yield np.nan, None

    def _of_file(self, packets: list[float]) -> Iterator[Frame]:
        last, failed = -np.inf, 0
        times = np.sort(packets)
        with self._capture() as (cv2, capture):
            for _ in packets:  # reading fails at a damaged frame, and after the last one
                good, frame = capture.read()
                if not good:
                    failed += 1
                    continue
                second = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                between = times[(times > last) & (times < second)] if failed else times[:0]
                for place in range(-failed, 0):
                    yield (between[place] if len(between) >= -place else np.nan), None
                failed = 0
                last = max(last, second)
                yield second, frame[:, :, ::-1]
        yield from ((second, None) for second in times[times > last][:failed])

    def _packets(self) -> list[float]:
        """Seconds of the encoded frames, which are not decoded."""
        if self._encoded is not None:
            return self._encoded
        times = []
        with self._capture("CAP_PROP_FORMAT", -1) as (cv2, capture):
            if self._remote and capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0:
                stream, fix = Shown(f"the live stream {self.path}"), "Open it with data.Stream."
                raise invalid("source", "a video with an end", stream, fix)
            while capture.grab():
                times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        self._encoded = times
        return times

    def _announced(self, packets: list[float]) -> int:
        """Number of frames in the header; 0 if that is not reliable."""
        with self._capture() as (cv2, capture):
            count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if str(self.path).lower().endswith(COUNTED):
            return count
        # OpenCV multiplies the duration of other containers by the rate. Sound is often longer than
        # the frames.
        even = packets and len(packets) > (1 - MOST_LOST) * (
            (max(packets) - min(packets)) * (self.rate or 0) + 1
        )
        return count if even and len(packets) < (1 - MOST_LOST) * count else 0

    @contextmanager
    def _capture(self, *setting: Any) -> Iterator[tuple[Any, Any]]:
        """Yield OpenCV and its reader of the file."""
        cv2 = checks.installed("cv2", "tracking")
        flags = [getattr(cv2, setting[0]), setting[1]] if setting else []
        capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG, flags)
        try:
            if not capture.isOpened():
                raise self._unreadable()
            yield cv2, capture
        finally:
            capture.release()


def _filled(seconds: np.ndarray, step: float) -> np.ndarray:
    """Seconds after the first frame; missing and not increasing values are interpolated.

    Before the first and after the last valid value, frames are `step` seconds apart.
    """
    times = np.nan_to_num(seconds, nan=-np.inf)
    before = np.maximum.accumulate(np.concatenate([[-np.inf], times[:-1]]))
    valid = np.flatnonzero(times > before)
    place = np.arange(len(times))
    first, last = valid[0], valid[-1]
    filled = np.interp(place, valid, times[valid])
    filled[:first] -= step * (first - place[:first])
    filled[last:] += step * (place[last:] - last)
    return filled - filled[0]
