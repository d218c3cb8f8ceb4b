"""Suppression of overlapping boxes."""

import numpy as np

MAX_IOU = 0.5


def without_overlaps(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop boxes that overlap with a box of a higher score.

    Args:
        boxes: (n, 4) as x, y, w, h.
        scores: (n,).

    Returns:
        The kept boxes (m, 4) and scores (m,), highest score first; their IoU is at most 0.5.

    Example:
        >>> boxes = np.array([[0, 0, 10, 20], [1, 0, 10, 20], [30, 0, 10, 20]])
        >>> without_overlaps(boxes, np.array([0.6, 0.9, 0.7]))[1].tolist()
        [0.9, 0.7]
    """
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = boxes[:, 2:].prod(axis=1)
    waiting, kept = np.argsort(-scores, kind="stable"), []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        sides = np.minimum(end[best], end[waiting]) - np.maximum(start[best], start[waiting])
        shared = sides.clip(0).prod(axis=1)
        waiting = waiting[shared <= MAX_IOU * (area[best] + area[waiting] - shared)]
    return boxes[kept], scores[kept]
