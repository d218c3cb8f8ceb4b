"""Within one camera: from detections to tracklets, by how persons look and how they move."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from keras_reid.data.mot import NOBODY, Boxes
from keras_reid.errors import InputError
from keras_reid.evaluation.rows import unit
from keras_reid.tracking.motion import GATE, Motion, overlaps

IMPOSSIBLE = 1e6


@dataclass
class Track:
    """One person in one camera."""

    number: int
    motion: Motion
    looks: deque[np.ndarray]
    rows: list[int] = field(default_factory=list)  # of the detections, in order
    missed: int = 0  # frames since it was seen
    confirmed: bool = False


class Tracker:
    """Detections of frame after frame to numbers of persons: DeepSORT, or SORT without embeddings.

    First, confirmed tracks are given the detections that look like them, those seen last before
    others. The cost is `λ m/9.49 + (1 − λ) c/most_cosine`, c the cosine distance to the nearest of
    the track's last looks and m the squared Mahalanobis distance from where the motion leads; pairs
    with `c > most_cosine` or `m > 9.49` (95 %) are impossible. What is left is given to tracks seen
    a frame ago by the overlap of boxes (without embeddings: to all). Assignments are optimal
    (scipy). A detection without a track begins one, which is confirmed after `confirm` detections
    and ends after `most_missed` frames without.

    Args:
        appearance: whether embeddings count.
        most_cosine: `1 − cos` up to which two looks may be one person's.
        motion_weight: λ in [0, 1].
        least_overlap: intersection over union of the predicted and a detected box.
        confirm: detections in a row that make a track.
        most_missed: frames that a track survives unseen.
        looks: embeddings that a track remembers.

    Raises:
        InputError: numbers out of range.

    Source: Wojke et al., ICIP 2017, arXiv:1703.07402; Bewley et al., ICIP 2016, arXiv:1602.00763.
    """

    def __init__(
        self,
        appearance: bool = True,
        most_cosine: float = 0.3,
        motion_weight: float = 0.5,
        least_overlap: float = 0.3,
        confirm: int = 3,
        most_missed: int = 30,
        looks: int = 100,
    ) -> None:
        if not (0 < most_cosine <= 2 and 0 < least_overlap < 1 and 0 <= motion_weight <= 1):
            raise InputError(
                "a cosine distance is in (0, 2], an overlap in (0, 1) and a weight in [0, 1]: "
                f"received most_cosine={most_cosine}, least_overlap={least_overlap} and "
                f"motion_weight={motion_weight}"
            )
        if confirm < 1 or most_missed < 0 or looks < 1:
            raise InputError(
                "confirm and looks are at least 1, most_missed at least 0: received "
                f"{confirm}, {looks} and {most_missed}"
            )
        self.appearance, self.most_cosine = appearance, most_cosine
        self.motion_weight = motion_weight
        self.least_overlap, self.confirm = least_overlap, confirm
        self.most_missed, self.looks = most_missed, looks
        self.tracks: list[Track] = []
        self.ended: list[Track] = []
        self._rows = 0
        self._number = 0

    def update(self, boxes: np.ndarray, embeddings: np.ndarray | None = None) -> None:
        """One frame later: its detections (n, 4) as (x, y, w, h), and how they look (n, d).

        Raises:
            InputError: embeddings are missing, or are not one for each box.
        """
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        if self.appearance and (embeddings is None or len(embeddings) != len(boxes)):
            raise InputError(
                f"appearance needs an embedding of each box: received "
                f"{'none' if embeddings is None else len(embeddings)} for {len(boxes)}; pass "
                "them, or appearance=False"
            )
        looks = np.zeros((len(boxes), 0))
        if self.appearance:
            looks = unit(np.asarray(embeddings, np.float64))
        for track in self.tracks:
            track.motion, track.missed = track.motion.predicted(), track.missed + 1
        left = list(range(len(boxes)))
        if self.appearance:
            for missed in sorted({t.missed for t in self.tracks if t.confirmed}):
                same = [t for t in self.tracks if t.confirmed and t.missed == missed]
                left = self._assign(same, left, self._looks_apart(same, boxes, looks), boxes, looks)
        unseen = [t for t in self.tracks if t.missed and (not self.appearance or t.missed == 1)]
        left = self._assign(unseen, left, self._boxes_apart(unseen, boxes), boxes, looks)
        for i in left:
            self._number += 1
            track = Track(self._number, Motion.of(boxes[i]), deque(maxlen=self.looks))
            self.tracks.append(track)
            self._see(track, i, boxes, looks)
        self._rows += len(boxes)
        self._end([t for t in self.tracks if t.missed > (self.most_missed if t.confirmed else 0)])

    def finish(self) -> list[Track]:
        """All confirmed tracks by number; the tracker begins anew."""
        self._end(self.tracks)
        ended, self.ended = self.ended, []
        return sorted((t for t in ended if t.confirmed), key=lambda t: t.number)

    def _end(self, tracks: list[Track]) -> None:
        self.ended += tracks
        gone = {id(track) for track in tracks}
        self.tracks = [track for track in self.tracks if id(track) not in gone]

    def _assign(
        self,
        tracks: list[Track],
        left: list[int],
        cost: np.ndarray,
        boxes: np.ndarray,
        looks: np.ndarray,
    ) -> list[int]:
        """Gives detections to tracks at the least cost and returns those that are left."""
        if not tracks or not left:
            return left
        chosen = cost[:, left]
        taken = set()
        for i, j in zip(*linear_sum_assignment(chosen), strict=True):
            if chosen[i, j] < IMPOSSIBLE:
                self._see(tracks[i], left[j], boxes, looks)
                taken.add(left[j])
        return [i for i in left if i not in taken]

    def _see(self, track: Track, i: int, boxes: np.ndarray, looks: np.ndarray) -> None:
        if track.rows:
            track.motion = track.motion.corrected(boxes[i])
        track.looks.append(looks[i])
        track.rows.append(self._rows + i)
        track.missed = 0
        track.confirmed = track.confirmed or len(track.rows) >= self.confirm

    def _looks_apart(self, tracks: list[Track], boxes: np.ndarray, looks: np.ndarray) -> np.ndarray:
        cost = np.empty((len(tracks), len(boxes)))
        for i, track in enumerate(tracks):
            looks_apart = 1 - (np.stack(track.looks) @ looks.T).max(axis=0)
            moved = track.motion.squared_mahalanobis(boxes)
            share = self.motion_weight
            cost[i] = share * moved / GATE + (1 - share) * looks_apart / self.most_cosine
            cost[i, (moved > GATE) | (looks_apart > self.most_cosine)] = IMPOSSIBLE
        return cost

    def _boxes_apart(self, tracks: list[Track], boxes: np.ndarray) -> np.ndarray:
        predicted = np.array([track.motion.box for track in tracks]).reshape(-1, 4)
        overlap = overlaps(predicted, boxes)
        return np.where(overlap < self.least_overlap, IMPOSSIBLE, 1 - overlap)


def track(
    detections: Boxes,
    embeddings: np.ndarray | None = None,
    frames: int | None = None,
    **options: Any,
) -> Boxes:
    """The detections of a whole video with the numbers of their persons; others are left out.

    Args:
        detections: n boxes, in the order of their frames.
        embeddings: (n, d); None: by motion alone.
        frames: of the video; None: up to the last detection.
        options: of `Tracker`.

    Raises:
        InputError: detections that are not in order, or as `Tracker`.
    """
    if (np.diff(detections.frame) < 0).any():
        raise InputError("detections are in the order of their frames: sort them first")
    tracker = Tracker(appearance=embeddings is not None, **options)
    last = max([frames or 0, *detections.frame.tolist()])
    ends = np.searchsorted(detections.frame, np.arange(1, last + 1), side="right")
    start = 0
    for end in ends.tolist():
        looks = None if embeddings is None else embeddings[start:end]
        tracker.update(detections.box[start:end], looks)
        start = end
    return numbered(detections, tracker.finish())


def numbered(detections: Boxes, tracks: list[Track]) -> Boxes:
    """The detections of the tracks, with 1, 2, … in the order in which the tracks begin."""
    identity = np.full(len(detections), NOBODY)
    for number, found in enumerate(tracks, start=1):
        identity[found.rows] = number
    kept = identity != NOBODY
    return Boxes(
        detections.frame[kept], identity[kept], detections.box[kept], detections.confidence[kept]
    )
