"""Within one camera: from detections to tracklets, by appearance and motion."""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from absl import logging
from scipy.optimize import linear_sum_assignment

from keras_reid import checks
from keras_reid.data.mot import UNLABELED, Boxes
from keras_reid.errors import InputError
from keras_reid.nearest.arrays import unit
from keras_reid.tracking.motion import GATE, Motion, overlaps

IMPOSSIBLE = 1e6


@dataclass
class Track:
    """One person in one camera.

    Attributes:
        number: of the track, from 1 in the order in which tracks begin.
        motion: predicted box and its uncertainty.
        embeddings: the last embeddings (d,), at most `budget`.
        box: (x, y, w, h) of the last detection.
        detection: row of the last detection in its frame.
        rows: the last detections, counted from 0 over all frames; at most `budget` and `n_init`.
        missed: frames since the last detection.
        confirmed: whether it has had `n_init` detections.
    """

    number: int
    motion: Motion
    embeddings: deque[np.ndarray]
    box: np.ndarray
    detection: int = 0
    rows: list[int] = field(default_factory=list)
    missed: int = 0
    confirmed: bool = False


@dataclass(eq=False)
class Tracker:
    """Detections of frame after frame to numbers of persons: DeepSORT, or SORT without embeddings.

    First, confirmed tracks are given the detections that look like them, those seen last before
    others. The cost is `λ m/9.49 + (1 − λ) c/max_cosine_distance`, c the cosine distance to the
    nearest of the track's last embeddings and m the squared Mahalanobis distance from where the
    motion leads; pairs with `c > max_cosine_distance` or `m > 9.49` (95 %) are impossible. What is
    left is given to tracks seen a frame ago by the overlap of boxes (without embeddings: to all).
    Assignments are optimal (scipy). A detection without a track begins one, which is confirmed
    after `n_init` detections and ends after `max_age` frames without.

    Memory is bounded, however long a stream is. Ended tracks that were confirmed are in `ended`
    until `finished()` returns them; beyond `history` of them the oldest is dropped.

    Args:
        appearance: whether embeddings count.
        max_cosine_distance: `1 − cos` up to which two embeddings may be one person's.
        motion_weight: λ in [0, 1].
        min_iou: intersection over union of the predicted and a detected box.
        n_init: detections in a row that make a track.
        max_age: frames that a track survives unseen.
        budget: number of embeddings and rows that a track remembers.
        history: number of ended tracks that wait for `finished()`.

    Raises:
        InputError: numbers out of range.

    Source: Wojke et al., ICIP 2017, arXiv:1703.07402; Bewley et al., ICIP 2016, arXiv:1602.00763.
    """

    appearance: bool = True
    max_cosine_distance: float = 0.3
    motion_weight: float = 0.5
    min_iou: float = 0.3
    n_init: int = 3
    max_age: int = 30
    budget: int = 100
    history: int = 100

    def __post_init__(self) -> None:
        checks.within("(0, 2]", max_cosine_distance=self.max_cosine_distance)
        checks.within("(0, 1)", min_iou=self.min_iou)
        checks.within("[0, 1]", motion_weight=self.motion_weight)
        checks.at_least(1, n_init=self.n_init, budget=self.budget, history=self.history)
        checks.at_least(0, max_age=self.max_age)
        self.tracks: list[Track] = []
        self.ended: deque[Track] = deque(maxlen=self.history)
        self._has_dropped = False
        self._embedding_dim: int | None = None
        self._frame = 0
        self._rows = 0
        self._number = 0

    def update(self, boxes: np.ndarray, embeddings: np.ndarray | None = None) -> list[Track]:
        """Assign the detections of the next frame, and return its active tracks.

        Args:
            boxes: (n, 4) as (x, y, w, h). An empty array of any shape has no boxes.
            embeddings: (n, d), with one d for all frames.

        Returns:
            The confirmed tracks with a detection in this frame, by number. They are updated in
            place by the next frames.

        Raises:
            InputError: boxes or embeddings of another shape; embeddings are missing, or are not one
                for each box; NaN or infinity, with the frame, counted from 1, and the row in it,
                counted from 0.
        """
        self._frame += 1
        boxes = _matrix("boxes", boxes, 4)
        if self.appearance and (embeddings is None or len(embeddings) != len(boxes)):
            raise InputError(
                f"appearance needs an embedding of each box: received "
                f"{'none' if embeddings is None else len(embeddings)} for {len(boxes)}; pass "
                "them, or appearance=False"
            )
        appearance = np.zeros((len(boxes), 0))
        if self.appearance:
            appearance = _matrix("embeddings", embeddings, self._embedding_dim)
        check_finite(np.full(len(boxes), self._frame), boxes=boxes, embeddings=appearance)
        if self.appearance and len(boxes):
            self._embedding_dim = appearance.shape[1]
        appearance = unit(appearance)
        for track in self.tracks:
            track.motion, track.missed = track.motion.predicted(), track.missed + 1
        left = list(range(len(boxes)))
        if self.appearance:
            for missed in sorted({t.missed for t in self.tracks if t.confirmed}):
                same = [t for t in self.tracks if t.confirmed and t.missed == missed]
                cost = self._appearance_distance(same, boxes, appearance)
                left = self._assign(same, left, cost, boxes, appearance)
        unseen = [t for t in self.tracks if t.missed and (not self.appearance or t.missed == 1)]
        left = self._assign(unseen, left, self._box_distance(unseen, boxes), boxes, appearance)
        for i in left:
            self._number += 1
            track = Track(self._number, Motion.of(boxes[i]), deque(maxlen=self.budget), boxes[i])
            self.tracks.append(track)
            self._see(track, i, boxes, appearance)
        self._rows += len(boxes)
        self._end([t for t in self.tracks if t.missed > (self.max_age if t.confirmed else 0)])
        return [t for t in self.tracks if t.confirmed and not t.missed]

    def finished(self) -> list[Track]:
        """Return the confirmed tracks that ended since the last call, by number."""
        ended = sorted(self.ended, key=lambda t: t.number)
        self.ended.clear()
        return ended

    def finish(self) -> list[Track]:
        """End all tracks and return the confirmed ones with those of `finished()`, by number."""
        active, self.tracks = [t for t in self.tracks if t.confirmed], []
        return sorted([*self.finished(), *active], key=lambda t: t.number)

    def _end(self, tracks: list[Track]) -> None:
        confirmed = [track for track in tracks if track.confirmed]
        if len(self.ended) + len(confirmed) > self.history and not self._has_dropped:
            self._has_dropped = True
            logging.warning(
                "the tracker drops the oldest of more than %d ended tracks: call finished() more "
                "often",
                self.history,
            )
        self.ended.extend(confirmed)
        gone = {id(track) for track in tracks}
        self.tracks = [track for track in self.tracks if id(track) not in gone]

    def _assign(
        self,
        tracks: list[Track],
        left: list[int],
        cost: np.ndarray,
        boxes: np.ndarray,
        appearance: np.ndarray,
    ) -> list[int]:
        """Gives detections to tracks at the least cost and returns those that are left."""
        if not tracks or not left:
            return left
        chosen = cost[:, left]
        taken = set()
        for i, j in zip(*linear_sum_assignment(chosen), strict=True):
            if chosen[i, j] < IMPOSSIBLE:
                self._see(tracks[i], left[j], boxes, appearance)
                taken.add(left[j])
        return [i for i in left if i not in taken]

    def _see(self, track: Track, i: int, boxes: np.ndarray, appearance: np.ndarray) -> None:
        if track.rows:
            track.motion = track.motion.corrected(boxes[i])
        track.embeddings.append(appearance[i])
        track.box, track.detection, track.missed = boxes[i], i, 0
        track.rows.append(self._rows + i)
        track.confirmed = track.confirmed or len(track.rows) >= self.n_init
        del track.rows[: -max(self.budget, self.n_init)]

    def _appearance_distance(
        self, tracks: list[Track], boxes: np.ndarray, appearance: np.ndarray
    ) -> np.ndarray:
        cost = np.empty((len(tracks), len(boxes)))
        for i, track in enumerate(tracks):
            distance = 1 - (np.stack(track.embeddings) @ appearance.T).max(axis=0)
            moved = track.motion.squared_mahalanobis(boxes)
            fraction = self.motion_weight
            cost[i] = fraction * moved / GATE + (1 - fraction) * distance / self.max_cosine_distance
            cost[i, (moved > GATE) | (distance > self.max_cosine_distance)] = IMPOSSIBLE
        return cost

    def _box_distance(self, tracks: list[Track], boxes: np.ndarray) -> np.ndarray:
        predicted = np.array([track.motion.box for track in tracks]).reshape(-1, 4)
        overlap = overlaps(predicted, boxes)
        return np.where(overlap < self.min_iou, IMPOSSIBLE, 1 - overlap)


def track(detections: Boxes, embeddings: np.ndarray | None = None, **options: Any) -> Boxes:
    """Detections of a whole video with the numbers of their tracks, without those of no track.

    Tracks are numbered 1, 2, … in the order in which they begin.

    Args:
        detections: n boxes, in the order of their frames.
        embeddings: (n, d); None: by motion alone.
        options: of `Tracker`.

    Raises:
        InputError: detections that are not in order, NaN or infinity in a box or an embedding, with
            its frame and row, or as `Tracker`.
    """
    if (np.diff(detections.frame) < 0).any():
        raise InputError("detections are in the order of their frames: sort them first")
    check_finite(detections.frame, boxes=detections.box)
    if embeddings is not None:
        check_finite(detections.frame, embeddings=embeddings)
    options = {**options, "history": max(1, len(detections))}  # none is dropped
    tracker = Tracker(appearance=embeddings is not None, **options)
    number = np.full(len(detections), UNLABELED)
    nobody = np.zeros((0, 4)), None if embeddings is None else np.zeros((0, 0))
    before = 0
    for frame in np.unique(detections.frame).tolist():
        # Nobody is followed for longer than this, however long nobody is seen.
        for _ in range(min(frame - before - 1, tracker.max_age + 1)):
            tracker.update(*nobody)
        here = slice(*np.searchsorted(detections.frame, (frame, frame + 1)))
        appearance = None if embeddings is None else embeddings[here]
        for active in tracker.update(detections.box[here], appearance):
            # The detections before it was confirmed are among the last `n_init`.
            number[active.rows[-tracker.n_init :]] = active.number
        tracker.finished()
        before = frame
    kept = number != UNLABELED
    identity = np.unique(number[kept], return_inverse=True)[1] + 1
    return replace(detections[kept], identity=identity)


def _matrix(name: str, values: Any, columns: int | None) -> np.ndarray:
    """Return values as float64 (n, columns); None: any number of columns.

    Raises:
        InputError: another shape of values that are not empty.
    """
    array = np.asarray(values, np.float64)
    if not array.size:
        return np.zeros((0, columns or 0))
    if array.ndim != 2 or columns not in (None, array.shape[1]):
        rule = f"(n, {columns or 'd'})" + (" as before" if name == "embeddings" and columns else "")
        raise InputError(
            f"`{name}` must have the shape {rule}, got {array.shape}. Pass one row for each box."
        )
    return array


def check_finite(frames: np.ndarray, **columns: np.ndarray) -> None:
    """Raise for NaN and infinity in columns (n, …) of detections in the frames (n,).

    Raises:
        InputError: the column, the frame, and the row counted from 0.
    """
    for name, values in columns.items():
        if len(values) != len(frames):
            raise InputError(
                f"`{name}` must have one row for each of {len(frames)} boxes, got {len(values)}."
            )
        numbers = np.asarray(values, np.float64)
        bad = np.argwhere(~np.isfinite(numbers))
        if len(bad):
            row = int(bad[0][0])
            raise InputError(
                f"`{name}` must be finite, got {numbers[tuple(bad[0])]} in frame "
                f"{int(frames[row])}, row {row}. Remove the row, or check the "
                "detector and the model."
            )
