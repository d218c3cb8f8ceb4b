"""Numbered tracks of a stream: each box once, in the order of frames."""

from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.tracking.tracker import Track, Tracker

MAX_GAP = 10  # frames


class TrackBox(NamedTuple):
    """Box of a track in a frame.

    Attributes:
        frame: number from 1.
        track: number of the track from 1.
        box: x, y, w, h in pixels.
        confidence: confidence of the detection, or the mean of the two detections around the frame.
        row: row of the detection, counted from 0 over all frames; None if the box is interpolated.
    """

    frame: int
    track: int
    box: np.ndarray
    confidence: float
    row: int | None


class _Step(NamedTuple):
    frame: int
    first: int  # row of the first detection
    boxes: np.ndarray
    confidence: np.ndarray


@dataclass(eq=False)
class OnlineTracks:
    """Tracks of a stream in bounded memory.

    Track numbers count confirmed tracks by first detection, as those of `tracking.track`. Frames
    between two detector runs get boxes that are interpolated linearly between the detections of a
    track. Frames in which a track was not detected get such boxes too, if it is detected again
    within `max_gap` frames.

    A track is confirmed `n_init` detector runs after its first detection. Boxes are returned with
    that delay, and up to `max_gap` frames later while a track is not detected.

    Attributes:
        tracker: tracker; it must not be used elsewhere.
        every: detector runs on every n-th frame.
        max_gap: maximum number of frames between two detections of a track that get boxes.
        active: numbers and tracks with a detection in the last update.
        ended: numbers of the tracks that ended in the last update.
    """

    tracker: Tracker
    every: int = 1
    max_gap: int = MAX_GAP
    active: list[tuple[int, Track]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        checks.whole(1, every=self.every, max_gap=self.max_gap)
        self._gap = max(self.every, self.max_gap)
        self._frame = self._rows = 0
        self._steps: deque[_Step] = deque(maxlen=self.tracker.n_init)
        self._next = count(1)
        self._numbers: dict[int, int] = {}  # of the tracker's numbers
        self._last: dict[int, TrackBox] = {}
        self._pending: list[TrackBox] = []

    def update(
        self,
        frame: int,
        boxes: np.ndarray,
        confidence: np.ndarray,
        embeddings: np.ndarray | None = None,
    ) -> list[TrackBox]:
        """Add the detections of a frame and return boxes of it and earlier frames, in order.

        Args:
            frame: number of the frame, above that of the last update. Frames in between are
                predicted by motion.
            boxes: (n, 4) as x, y, w, h in pixels.
            confidence: (n,).
            embeddings: (n, d); None: track only by motion.

        Raises:
            InputError: see `Tracker.update`.
        """
        self.tracker.skip(frame - self._frame - 1)
        active = self.tracker.update(boxes, embeddings)
        self._frame = frame
        self._steps.append(_Step(frame, self._rows, boxes, confidence))
        self._rows += len(boxes)
        self.active = [(self._number(track), track) for track in active]
        for number, track in self.active:
            new = number not in self._last
            for row in track.rows[-self.tracker.n_init :] if new else track.rows[-1:]:
                self._add(number, row)
        self.ended = [self._forget(track) for track in self.tracker.finished()]
        return self._complete(self._first_open())

    def finish(self) -> list[TrackBox]:
        """End all tracks and return the remaining boxes."""
        self.active = []
        self.ended = [self._forget(track) for track in self.tracker.finish()]
        return self._complete(self._frame + 1)

    def _first_open(self) -> int:
        """Return the first frame that can get further boxes."""
        if len(self._steps) < self.tracker.n_init:
            return self._steps[0].frame
        second = [step.frame for step in self._steps][1:2] or [self._frame + 1]
        lost = [one.frame + 1 for one in self._last.values() if self._frame - one.frame < self._gap]
        return min(second + lost)

    def _number(self, track: Track) -> int:
        if track.number not in self._numbers:
            self._numbers[track.number] = next(self._next)
        return self._numbers[track.number]

    def _forget(self, track: Track) -> int:
        number = self._numbers.pop(track.number)
        self._last.pop(number)
        return number

    def _add(self, number: int, row: int) -> None:
        """Add a detection, and the boxes between it and the last one of the track."""
        step = next(s for s in reversed(self._steps) if s.first <= row)
        place = row - step.first
        box, confidence = step.boxes[place], float(step.confidence[place])
        before = self._last.get(number)
        if before is not None and step.frame - before.frame <= self._gap:
            mean = (before.confidence + confidence) / 2
            for frame in range(before.frame + 1, step.frame):
                fraction = (frame - before.frame) / (step.frame - before.frame)
                between = (1 - fraction) * before.box + fraction * box
                self._pending.append(TrackBox(frame, number, between, mean, None))
        self._last[number] = TrackBox(step.frame, number, box, confidence, row)
        self._pending.append(self._last[number])

    def _complete(self, end: int) -> list[TrackBox]:
        """Return the pending boxes of frames before `end`."""
        done = [one for one in self._pending if one.frame < end]
        self._pending = [one for one in self._pending if one.frame >= end]
        return sorted(done, key=lambda one: (one.frame, one.track))
