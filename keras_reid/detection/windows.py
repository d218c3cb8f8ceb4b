"""Detection in windows of an image, by a network of a fixed input size."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from keras_reid.detection.suppression import without_overlaps

# Squares, uint8 RGB (b, s, s, 3) → boxes of persons (b, n, 4), top, left, bottom, right as
# fractions of the square, and scores (b, n).
Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
Window = tuple[int, int, int, int]  # x, y, w, h

SIDE = 300  # side of a square that the network gets, in pixels
EDGE = 0.01  # fraction of a window within which a box touches its edge
MIN_SCORE = 0.3
# Minimum height of a person in the frame, a large and a small window, in sides of the small window.
LEAST_HEIGHTS = (0.5, 0.75, 0)
COVERED = 0.6  # fraction of the area of a part of a person that higher boxes cover
HIGHER = 1.25  # height of a person in heights of its part


def detect_in_windows(
    network: Network, frame: np.ndarray, chosen: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Detect persons by a network in a whole frame, and in square windows of two sizes.

    The sides of the windows are the shorter side of the frame, and half of it. Windows overlap by
    half and are resized to the network's input. A box that touches an edge of its window inside the
    frame is dropped, because a neighboring window shows the whole person. The whole frame and the
    large windows add persons that are too high for a small window. Boxes of a smaller window inside
    persons that are higher than it are parts of them and are dropped. Of boxes with an IoU above
    0.5 only the one of the highest score is kept.

    Args:
        network: the network.
        frame: uint8 RGB (h, w, 3).
        chosen: indices in `windows_of`: only these small windows, and the whole frame. None: all.
    """
    height, width = frame.shape[:2]
    shorter = min(height, width)
    half = max(1, round(shorter / 2))
    levels = [[(0, 0, width, height)], _windows(height, width, shorter)]
    levels.append(windows_of(height, width))
    if chosen is not None:
        levels[1:] = [], [levels[2][i] for i in chosen]
    found, scores = _detected(network, frame, [window for level in levels for window in level])
    boxes, sure, first = np.zeros((0, 4)), np.zeros(0), 0
    for number, level in enumerate(levels):
        rows = slice(first, first + len(level))
        first += len(level)
        kept = (scores[rows] >= MIN_SCORE) & (found[rows][..., 2:].min(-1) > 0)
        kept &= found[rows][..., 3] > LEAST_HEIGHTS[number] * half
        new, score = found[rows][kept], scores[rows][kept]
        whole = ~_are_parts(new, boxes[boxes[:, 3] > half])
        boxes, sure = without_overlaps(
            np.concatenate([boxes, new[whole]]), np.concatenate([sure, score[whole]])
        )
    return boxes, sure


def windows_of(height: int, width: int) -> list[Window]:
    """Return the small windows of a frame."""
    return _windows(height, width, max(1, round(min(height, width) / 2)))


def _detected(
    network: Network, frame: np.ndarray, windows: list[Window]
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (b, n, 4) in pixels and scores (b, n) of windows; a cut box has the score 0."""
    height, width = frame.shape[:2]
    picture, bilinear = Image.fromarray(frame), Image.Resampling.BILINEAR
    squares = [
        np.asarray(picture.resize((SIDE, SIDE), bilinear, (x, y, x + w, y + h)))
        for x, y, w, h in windows
    ]
    fractions, scores = network(np.stack(squares))
    x, y, w, h = np.array(windows, float).T[:, :, None]
    top, left, bottom, right = np.moveaxis(np.clip(fractions, 0, 1), -1, 0)
    cut = ((top < EDGE) & (y > 0)) | ((bottom > 1 - EDGE) & (y + h < height))
    cut |= ((left < EDGE) & (x > 0)) | ((right > 1 - EDGE) & (x + w < width))
    boxes = np.stack([x + left * w, y + top * h, (right - left) * w, (bottom - top) * h], -1)
    return boxes, np.where(cut, 0, scores)


def _are_parts(boxes: np.ndarray, persons: np.ndarray) -> np.ndarray:
    """Return a mask (n,) of the boxes that are mostly covered by clearly higher persons (m, 4)."""
    start, end = boxes[:, None, :2], (boxes[:, :2] + boxes[:, 2:])[:, None]
    sides = np.minimum(end, persons[:, :2] + persons[:, 2:]) - np.maximum(start, persons[:, :2])
    shared = sides.clip(0).prod(-1) * (persons[:, 3] > HIGHER * boxes[:, None, 3])
    return shared.sum(1) > COVERED * boxes[:, 2:].prod(1)


def _windows(height: int, width: int, side: int) -> list[Window]:
    """Return square windows (x, y, w, h) that cover a frame; none if one window is the frame."""
    if side == height == width:
        return []
    return [(x, y, side, side) for y in _starts(height, side) for x in _starts(width, side)]


def _starts(length: int, side: int) -> list[int]:
    """Return the starts of windows that cover a length and overlap by at least half."""
    count = 1 + int(np.ceil(2 * (length - side) / side))
    return [round(start) for start in np.linspace(0, length - side, count)]
