"""Detection, embedding and tracking of a source in three threads."""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.data.frames import cut
from keras_reid.data.streams import Stream, StreamLost
from keras_reid.data.video import Video
from keras_reid.pixels import resize
from keras_reid.tracking.ahead import ahead
from keras_reid.tracking.online import OnlineTracks, TrackBox
from keras_reid.tracking.tracker import Track, Tracker

DECODED = 8  # frames ahead of the detector
DETECTED = 2  # frames ahead of the embedder
LEAST_RUNS = 3.0  # detector runs per second with `detect_every="auto"`

# The number and the pixels of a frame → boxes (n, 4) and confidence (n,).
Detect = Callable[[int, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Crops(NamedTuple):
    """Embedding of crops.

    Attributes:
        embed: function from uint8 (b, h, w, 3) to (b, d).
        image_size: (h, w) of the images.
        batch_size: maximum number of crops at a time.
    """

    embed: Callable[[np.ndarray], np.ndarray]
    image_size: tuple[int, int]
    batch_size: int = 64

    def of(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return the embeddings (n, d) of boxes (n, 4); a box outside is embedded as black."""
        black = np.zeros((*self.image_size, 3), np.uint8)
        cuts = (cut(image, box) for box in boxes)
        crops = [black if crop is None else resize(crop, self.image_size) for crop in cuts]
        starts = range(0, len(crops), self.batch_size)
        parts = [self.embed(np.stack(crops[i : i + self.batch_size])) for i in starts]
        return np.concatenate(parts) if parts else np.zeros((0, 0))


class FrameTracks(NamedTuple):
    """Frame with its detections and tracks.

    Attributes:
        number: number of the frame, from 1.
        seconds: seconds after the first frame.
        image: pixels of a frame with detector, uint8 RGB (h, w, 3); else None.
        boxes: detections (n, 4) as x, y, w, h in pixels.
        confidence: (n,).
        embeddings: (n, d); None if there is no embedder.
        complete: boxes of tracks in this frame and earlier ones; each is returned once.
        active: numbers and tracks of the detections.
        ended: numbers of the tracks that ended.
    """

    number: int
    seconds: float
    image: np.ndarray | None
    boxes: np.ndarray
    confidence: np.ndarray
    embeddings: np.ndarray | None
    complete: list[TrackBox]
    active: list[tuple[int, Track]]
    ended: list[int]


def follow(
    video: Video | Stream,
    detect: Detect,
    tracks: OnlineTracks,
    crops: Crops | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Generator[FrameTracks]:
    """Yield each frame with its tracks, in bounded memory.

    One thread decodes frames, one detects persons, and the calling thread embeds and tracks. If the
    detector is slower than a `Stream`, frames are dropped. The last item ends all tracks, also if
    the stream is lost.

    Args:
        video: source of the frames.
        detect: function of the number and the pixels of each `tracks.every`-th frame.
        tracks: tracks, without updates so far.
        crops: embedder; None: track only by motion.
        stopped: function that returns True to end before the last frame.

    Raises:
        StreamLost: the stream is lost, after the last item.
        InputError: frames that cannot be read, or as `Tracker.update`.
    """
    frames = ahead(_numbered(video), DECODED, drop_oldest=isinstance(video, Stream))
    detected = ahead(_detected(frames, detect, tracks.every), DETECTED, stopped=stopped)
    number, seconds, lost = 0, 0.0, None
    none = np.zeros((0, 4)), np.zeros(0), None
    try:
        for number, seconds, image, found in detected:
            if image is None or found is None:
                yield FrameTracks(number, seconds, None, *none, [], [], [])
                continue
            looks = crops.of(image, found[0]) if crops else None
            complete, at = tracks.update(number, *found, looks), (number, seconds, image)
            yield FrameTracks(*at, *found, looks, complete, tracks.active, tracks.ended)
    except StreamLost as error:
        lost = error
    yield FrameTracks(number, seconds, None, *none, tracks.finish(), [], tracks.ended)
    if lost is not None:
        raise lost


def _numbered(video: Video | Stream) -> Iterator[tuple[int, float, np.ndarray]]:
    for number, (seconds, frame) in enumerate(video.timed(), start=1):
        yield number, seconds, frame


def _detected(
    frames: Iterable[tuple[int, float, np.ndarray]], detect: Detect, every: int
) -> Iterator[tuple[int, float, np.ndarray | None, tuple[np.ndarray, np.ndarray] | None]]:
    due = 1
    try:
        for number, seconds, frame in frames:
            if number < due:
                yield number, seconds, None, None
                continue
            due = number + every
            image = checks.pixels(frame, "frame")
            boxes, confidence = detect(number, image)
            boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
            yield number, seconds, image, (boxes, np.asarray(confidence, np.float64))
    finally:
        close = getattr(frames, "close", None)
        if close is not None:
            close()


def every_for(rate: float | None) -> int:
    """Return n, such that a detector on every n-th frame runs at least `LEAST_RUNS` times a second.

    >>> every_for(25.0), every_for(8.0), every_for(None)
    (8, 2, 1)
    """
    return max(1, int(rate / LEAST_RUNS)) if rate else 1


def tracks_for(every: int, n_init: int = 3, max_age: int = 30, **options: Any) -> OnlineTracks:
    """Return tracks for a detector on every n-th frame.

    `n_init` and `max_age` are numbers of frames, and are converted to numbers of detector runs.

    Args:
        every: n.
        n_init: see `Tracker`.
        max_age: see `Tracker`.
        **options: other options of `Tracker`.

    Raises:
        InputError: see `Tracker`.
    """
    checks.at_least(1, n_init=n_init)
    runs = 1 + -(-(n_init - 1) // every)
    return OnlineTracks(Tracker(n_init=runs, max_age=max_age // every, **options), every)
