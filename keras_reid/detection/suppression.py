"""Overlaps of boxes, and suppression of overlapping ones."""

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
    waiting, kept = np.argsort(-scores, kind="stable"), []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        waiting = waiting[overlaps(boxes[[best]], boxes[waiting])[0] <= MAX_IOU]
    return boxes[kept], scores[kept]


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return `|A ∩ B| / |A ∪ B|` (n, m) of boxes (n, 4) and (m, 4) as (x, y, w, h)."""
    first = np.maximum(boxes[:, None, :2], others[None, :, :2])
    last = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    shared = np.maximum(last - first, 0).prod(axis=-1)
    area = boxes[:, 2:].prod(axis=-1)[:, None] + others[:, 2:].prod(axis=-1)[None]
    return shared / np.maximum(area - shared, 1e-9)
