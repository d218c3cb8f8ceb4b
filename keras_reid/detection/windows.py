"""Detection in windows of an image, by a network of a fixed input size."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from keras_reid.detection.suppression import without_overlaps

# Squares, uint8 RGB (b, s, s, 3) → boxes of persons (b, n, 4), top, left, bottom, right as
# fractions of the square, and scores (b, n).
Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

SIDE = 300  # side of a square that the network gets, in pixels
EDGE = 0.01  # fraction of a window within which a box touches its edge
MIN_SCORE = 0.3


def detect_in_windows(network: Network, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Detect persons by a network in square windows of a frame, and in the whole frame.

    The side of a window is half the shorter side of the frame. Windows overlap by half and are
    resized to the network's input. A box that touches an edge of its window inside the frame is
    dropped, because a neighboring window shows the whole person. The whole frame adds persons that
    are too high for a window. Of boxes with an IoU above 0.5 only the one of the highest score is
    kept.
    """
    height, width = frame.shape[:2]
    side = max(1, round(min(height, width) / 2))
    windows = [(x, y, side, side) for y in _starts(height, side) for x in _starts(width, side)]
    windows.append((0, 0, width, height))
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
    kept = (scores >= MIN_SCORE) & ~cut & (boxes[..., 2:].min(-1) > 0)
    kept[-1] &= boxes[-1, :, 3] > side / 2
    return without_overlaps(boxes[kept], scores[kept])


def _starts(length: int, side: int) -> list[int]:
    """Return the starts of windows that cover a length and overlap by at least half."""
    count = 1 + int(np.ceil(2 * (length - side) / side))
    return [round(start) for start in np.linspace(0, length - side, count)]
