"""Formats of detectors in ONNX files: preprocessing, and decoding of the outputs.

The first class is the person, as in COCO, unless the file names its classes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_reid.detection.letterbox import Letterbox

Size = tuple[int, int]  # height and width in pixels
Outputs = Mapping[str, np.ndarray]  # by name, in the order of the file
STRIDES = (8, 16, 32, 64)  # pixels of the input per cell; 64 only in models for large images


class Decoded(NamedTuple):
    """Detections of all classes.

    Attributes:
        corners: (n, 4), left, top, right and bottom in pixels of the input.
        score: (n,).
        label: (n,) number of the class.
    """

    corners: np.ndarray
    score: np.ndarray
    label: np.ndarray


class Format(NamedTuple):
    """Format of a detector.

    Attributes:
        decode: function of the outputs, the size of the input and the number of classes (None if
            unknown).
        fit: mapping of an image to the input.
        divisor: divisor of the gray levels.
        bgr: whether the channels are in the order blue, green, red.
        suppressed: whether the outputs are without overlapping boxes of one person.
    """

    decode: Callable[[Outputs, Size, int | None], Decoded]
    fit: Callable[[Size, Size], Letterbox]
    divisor: float = 255
    bgr: bool = False
    suppressed: bool = False


def yolo(outputs: Outputs, size: Size, classes: int | None) -> Decoded:
    """Decode YOLOv8 and later: (1, 4 + c, n), center and size in pixels, then class scores."""
    rows = _first(outputs).T
    last = None if classes is None else 4 + classes  # models of masks or points have more columns
    return _best(_from_centers(rows[:, :4]), rows[:, 4:last])


def yolo_nms(outputs: Outputs, size: Size, classes: int | None) -> Decoded:
    """Decode YOLO with built-in suppression: (1, n, 6), corners in pixels, score, class."""
    rows = _first(outputs)
    return Decoded(rows[:, :4], rows[:, 4], rows[:, 5])


def yolox(outputs: Outputs, size: Size, classes: int | None) -> Decoded:
    """Decode YOLOX: (1, n, 5 + c), offset and log of the size in cells, objectness, class scores.

    See Ge et al., "YOLOX: Exceeding YOLO Series in 2021".
    """
    rows = _first(outputs)
    cells, stride = _grid(size, len(rows))
    decoded = np.concatenate([(rows[:, :2] + cells) * stride, np.exp(rows[:, 2:4]) * stride], 1)
    return _best(_from_centers(decoded), rows[:, 4:5] * rows[:, 5:])


def rtdetr(outputs: Outputs, size: Size, classes: int | None) -> Decoded:
    """Decode RT-DETR (Zhao et al., CVPR 2024).

    The outputs are labels (1, n), boxes (1, n, 4) and scores (1, n); or
    logits (1, n, c) and pred_boxes (1, n, 4); or one output (1, n, 4 + c); or one output (1, n, 6)
    with score and class, if the number of classes is not 2. Boxes of the first form are
    corners in pixels. Other boxes are center and size as fractions of the input.
    """
    if "labels" in outputs:
        return Decoded(outputs["boxes"][0], outputs["scores"][0], outputs["labels"][0])
    whole = np.array(size[::-1] * 2, float)
    if "logits" in outputs:
        probabilities = 1 / (1 + np.exp(-outputs["logits"][0].astype(float)))
        return _best(_from_centers(outputs["pred_boxes"][0]) * whole, probabilities)
    rows = _first(outputs)
    corners = _from_centers(rows[:, :4]) * whole
    if rows.shape[1] == 6 and classes != 2:
        return Decoded(corners, rows[:, 4], rows[:, 5])
    return _best(corners, rows[:, 4:])


def _first(outputs: Outputs) -> np.ndarray:
    """Return the first image of the first output."""
    return next(iter(outputs.values()))[0]


def _from_centers(boxes: np.ndarray) -> np.ndarray:
    """Return left, top, right and bottom (n, 4) of center and size (n, 4)."""
    center, half = boxes[:, :2].astype(float), boxes[:, 2:].astype(float) / 2
    return np.concatenate([center - half, center + half], axis=1)


def _best(corners: np.ndarray, scores: np.ndarray) -> Decoded:
    """Return the best class of each box, from the scores (n, c)."""
    return Decoded(corners, scores.max(axis=1), scores.argmax(axis=1))


def _grid(size: Size, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row (n, 2) and stride (n, 1) of all cells, from the smallest stride."""
    cells, strides = [], []
    for stride in STRIDES if count == cell_count(size, STRIDES) else STRIDES[:3]:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells), np.concatenate(strides)


def cell_count(size: Size, strides: Sequence[int]) -> int:
    """Return the number of cells of all strides."""
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


FORMATS = {
    "yolo": Format(yolo, Letterbox.centered),
    "yolo_nms": Format(yolo_nms, Letterbox.centered, suppressed=True),
    "yolox": Format(yolox, Letterbox.cornered, divisor=1, bgr=True),
    "rtdetr": Format(rtdetr, Letterbox.stretched, suppressed=True),
}


def recognized(
    shapes: Mapping[str, Sequence[int]], size: Size, metadata: Mapping[str, str]
) -> str | None:
    """Return the name of the format; None if it is unknown.

    Args:
        shapes: shapes of the outputs by name.
        size: size of the input.
        metadata: metadata of the file.
    """
    if {"labels", "boxes", "scores"} == {*shapes} or {"logits", "pred_boxes"} <= {*shapes}:
        return "rtdetr"
    first = tuple(next(iter(shapes.values())))
    if len(first) != 3:
        return None
    _, rows, columns = first
    counts = {cell_count(size, STRIDES[:3]), cell_count(size, STRIDES)}
    if columns in counts and rows > 4:
        return "yolo"
    if rows in counts and columns > 5:
        return "yolox"
    if metadata.get("head") == "RTDETRDecoder" or (columns > 6 and rows < min(counts)):
        return "rtdetr"
    return "yolo_nms" if columns == 6 else None
