"""Tracks of persons in one camera, by appearance and motion."""

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from absl import logging

from keras_reid import checks
from keras_reid.data.mot import Boxes
from keras_reid.detection.suppression import overlaps
from keras_reid.nearest.arrays import unit
from keras_reid.tracking.detections import check_finite, check_order, matrix
from keras_reid.tracking.motion import GATE, Motion

IMPOSSIBLE = 1e6  # cost of a pair that is not matched


@dataclass
class Track:
    """Track of one person in one camera.

    Attributes:
        number: number of the track; the first one is 1.
        motion: predicted box and its uncertainty.
        embeddings: the last embeddings (d,), at most `budget`.
        box: (x, y, w, h) of the last detection.
        detection: row of the last detection in its frame.
        rows: places of the last detections among the detections of all frames, from 0; at most
            `max(budget, n_init)`.
        missed: number of frames since the last detection.
        confirmed: True after `n_init` detections.
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
    """Online tracker: DeepSORT, or SORT without embeddings.

    Confirmed tracks are matched by appearance, recently detected tracks first. The cost is `λ
    m/9.49 + (1 − λ) c/max_cosine_distance`. c is the cosine distance to the nearest of the track's
    last embeddings, and m the squared Mahalanobis distance to the predicted box. Pairs with `c >
    max_cosine_distance` or `m > 9.49` (95 %) are not matched. The other detections are matched by
    the overlap of boxes with tracks of the previous frame, or with all tracks if there are no
    embeddings; unconfirmed tracks without overlap are matched by the cost above. Assignments are
    optimal (scipy). An unmatched detection starts a track. A track is confirmed after `n_init`
    consecutive detections; before, a frame without a detection ends it. A confirmed track ends
    after more than `max_age` such frames in a row.

    Memory is bounded for streams of any length. Ended tracks that were confirmed remain in `ended`
    until `finished()` returns them; if there are more than `history`, the oldest is dropped.

    Args:
        appearance: True to match by embeddings.
        max_cosine_distance: maximum `1 − cos` of two embeddings of one person.
        motion_weight: λ in [0, 1].
        min_iou: minimum intersection over union of the predicted and a detected box.
        n_init: number of consecutive detections that confirm a track.
        max_age: number of frames in a row that a confirmed track survives without a detection.
        budget: number of last embeddings that a track keeps, and at least of its `rows`.
        history: number of ended tracks that are kept for `finished()`.

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
        """Assign the detections of the next frame and return its active tracks.

        Args:
            boxes: (n, 4) as (x, y, w, h). An empty array of any shape has no boxes.
            embeddings: (n, d), with one d for all frames.

        Returns:
            The confirmed tracks with a detection in this frame, by number. The next frames update
            them in place.

        Raises:
            InputError: boxes or embeddings of another shape or number, or values that are not
                finite, with the frame, counted from 1, and the row in it, counted from 0.
        """
        self._frame += 1
        boxes, looks = self._checked(boxes, embeddings)
        for track in self.tracks:
            track.motion, track.missed = track.motion.predicted(), track.missed + 1
        left = list(range(len(boxes)))
        if self.appearance:
            for missed in sorted({t.missed for t in self.tracks if t.confirmed}):
                same = [t for t in self.tracks if t.confirmed and t.missed == missed]
                cost = self._appearance_distance(same, boxes, looks)
                left = self._assign(same, left, cost, boxes, looks)
        others = [t for t in self.tracks if t.missed and (not self.appearance or t.missed == 1)]
        left = self._assign(others, left, self._box_distance(others, boxes, looks), boxes, looks)
        for i in left:
            self._number += 1
            track = Track(self._number, Motion.of(boxes[i]), deque(maxlen=self.budget), boxes[i])
            self.tracks.append(track)
            self._add(track, i, boxes[i], looks[i])
        self._rows += len(boxes)
        self._end_lost()
        return [t for t in self.tracks if t.confirmed and not t.missed]

    def _checked(self, boxes: Any, embeddings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return boxes (n, 4) and unit embeddings (n, d); d is 0 without appearance."""
        boxes = matrix("boxes", boxes, 4)
        looks = np.zeros((len(boxes), 0))
        if self.appearance:
            looks = matrix(
                "embeddings", () if embeddings is None else embeddings, self._embedding_dim
            )
        check_finite(np.full(len(boxes), self._frame), boxes=boxes, embeddings=looks)
        if looks.size:
            self._embedding_dim = looks.shape[1]
        return boxes, unit(looks)

    def skip(self, frames: int) -> None:
        """Predict the motion of the tracks over frames without a detector; they do not end."""
        self._frame += frames
        for track in self.tracks:
            for _ in range(frames):
                track.motion = track.motion.predicted()

    def finished(self) -> list[Track]:
        """Return the confirmed tracks that ended since the last call, by number."""
        ended = sorted(self.ended, key=lambda t: t.number)
        self.ended.clear()
        return ended

    def finish(self) -> list[Track]:
        """End all tracks, and return all confirmed tracks that `finished()` did not return."""
        active, self.tracks = [t for t in self.tracks if t.confirmed], []
        return sorted([*self.finished(), *active], key=lambda t: t.number)

    def _end_lost(self) -> None:
        """Move confirmed tracks without recent detections to `ended`, and drop the others."""
        tracks, self.tracks = self.tracks, []
        for track in tracks:
            if track.missed <= (self.max_age if track.confirmed else 0):
                self.tracks.append(track)
            elif track.confirmed:
                if len(self.ended) == self.history and not self._has_dropped:
                    self._has_dropped = True
                    logging.warning(
                        "The tracker drops the oldest of more than %d ended tracks. Call "
                        "finished() more often.",
                        self.history,
                    )
                self.ended.append(track)

    def _assign(
        self,
        tracks: list[Track],
        left: list[int],
        cost: np.ndarray,
        boxes: np.ndarray,
        looks: np.ndarray,
    ) -> list[int]:
        """Assign detections to tracks at the least cost and return the unassigned ones."""
        from scipy.optimize import linear_sum_assignment  # --help does not need scipy

        if not tracks or not left:
            return left
        cost = cost[:, left]
        assigned = set()
        for i, j in zip(*linear_sum_assignment(cost), strict=True):
            if cost[i, j] < IMPOSSIBLE:
                self._add(tracks[i], left[j], boxes[left[j]], looks[left[j]])
                assigned.add(left[j])
        return [i for i in left if i not in assigned]

    def _add(self, track: Track, i: int, box: np.ndarray, look: np.ndarray) -> None:
        """Add detection i of the frame to a track."""
        if track.rows:
            track.motion = track.motion.corrected(box)
        track.embeddings.append(look)
        track.box, track.detection, track.missed = box, i, 0
        track.rows.append(self._rows + i)
        track.confirmed = track.confirmed or len(track.rows) >= self.n_init
        del track.rows[: -max(self.budget, self.n_init)]

    def _appearance_distance(
        self, tracks: list[Track], boxes: np.ndarray, looks: np.ndarray
    ) -> np.ndarray:
        cost = np.empty((len(tracks), len(boxes)))
        for i, track in enumerate(tracks):
            distance = 1 - (np.stack(track.embeddings) @ looks.T).max(axis=0)
            moved = track.motion.squared_mahalanobis(boxes)
            fraction = self.motion_weight
            cost[i] = fraction * moved / GATE + (1 - fraction) * distance / self.max_cosine_distance
            cost[i, (moved > GATE) | (distance > self.max_cosine_distance)] = IMPOSSIBLE
        return cost

    def _box_distance(
        self, tracks: list[Track], boxes: np.ndarray, looks: np.ndarray
    ) -> np.ndarray:
        """Return `1 − IoU`; without overlap, `1 +` appearance distance of unconfirmed tracks."""
        predicted = np.array([track.motion.box for track in tracks]).reshape(-1, 4)
        overlap = overlaps(predicted, boxes)
        cost = np.where(overlap < self.min_iou, IMPOSSIBLE, 1 - overlap)
        new = [i for i, track in enumerate(tracks) if not track.confirmed]
        if self.appearance and new and len(boxes):
            distance = self._appearance_distance([tracks[i] for i in new], boxes, looks)
            cost[new] = np.minimum(cost[new], 1 + distance)
        return cost


def track(detections: Boxes, embeddings: np.ndarray | None = None, **options: Any) -> Boxes:
    """Return the detections of a whole video that belong to a track, with its number.

    Args:
        detections: n boxes in pixels, in the order of their frames.
        embeddings: (n, d), one for each box; None: track only by motion.
        **options: options of `Tracker`.

    Returns:
        The boxes of confirmed tracks, m ≤ n; their identities are the numbers of the tracks.

    Raises:
        InputError: as `track_numbers`.

    Example:
        >>> import numpy as np
        >>> from keras_reid import tracking
        >>> from keras_reid.data.mot import Boxes
        >>> frame = np.repeat([1, 2, 3, 4], 2)
        >>> box = [(100 * person + 2 * t, 50, 20, 60) for t in range(4) for person in range(2)]
        >>> detections = Boxes(frame, np.full(8, -1), np.array(box), np.ones(8))
        >>> tracking.track(detections).identity.tolist()
        [1, 2, 1, 2, 1, 2, 1, 2]
    """
    numbers = track_numbers(detections, embeddings, **options)
    return replace(detections[numbers > 0], identity=numbers[numbers > 0])


def track_numbers(
    detections: Boxes, embeddings: np.ndarray | None = None, **options: Any
) -> np.ndarray:
    """Return the number (n,) of the track of each detection of a video.

    Tracks are numbered from 1 in the order of their first detections. Detections without a
    confirmed track have the number 0.

    Args:
        detections: n boxes in pixels, in the order of their frames.
        embeddings: (n, d), one for each box; None: track only by motion.
        **options: options of `Tracker`.

    Raises:
        InputError: detections that are not in order, or as `Tracker.update`.
    """
    check_order(detections=detections)
    looks = np.zeros((len(detections), 0)) if embeddings is None else embeddings
    check_finite(detections.frame, boxes=detections.box, embeddings=looks)
    options = {**options, "history": max(1, len(detections))}  # none is dropped
    tracker = Tracker(appearance=embeddings is not None, **options)
    numbers = np.zeros(len(detections), int)
    before = 0
    for frame in np.unique(detections.frame).tolist():
        # All tracks have ended after this many empty frames.
        for _ in range(min(frame - before - 1, tracker.max_age + 1)):
            tracker.update(np.zeros((0, 4)))
        rows = slice(*np.searchsorted(detections.frame, (frame, frame + 1)))
        for active in tracker.update(detections.box[rows], looks[rows]):
            # The detections before it was confirmed are among the last `n_init`.
            numbers[active.rows[-tracker.n_init :]] = active.number
        before = frame
    kept = numbers > 0
    numbers[kept] = np.unique(numbers[kept], return_inverse=True)[1] + 1
    return numbers
