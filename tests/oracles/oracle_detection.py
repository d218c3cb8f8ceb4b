"""Naive decoding of detectors: loops over rows, from the outputs of a network to boxes in pixels.

Each function takes the outputs for one image by name, the (height, width) of the input and of the
image, and returns [x, y, w, h, score] of the persons, class 0, highest score first.
"""

import math

import numpy as np
from PIL import Image

LEAST_SCORE, MOST_IOU = 0.3, 0.5


def input_of(image, size, name):
    """Return the input (1, 3, h, w) of an image, uint8 RGB."""
    height, width = image.shape[:2]
    top, left, high, wide = place(size, (height, width), name)
    canvas = np.full((*size, 3), 114.0)
    picture = Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR)
    canvas[top : top + high, left : left + wide] = np.asarray(picture)
    canvas = canvas[:, :, ::-1] if name == "yolox" else canvas / 255
    return np.moveaxis(canvas, 2, 0)[None].astype(np.float32)


def place(size, image, name):
    """Return top, left, height and width of the image in the input."""
    if name == "rtdetr":
        return 0, 0, *size
    scale = min(size[0] / image[0], size[1] / image[1])
    if name == "yolox":
        return 0, 0, math.floor(image[0] * scale), math.floor(image[1] * scale)
    high, wide = round(image[0] * scale), round(image[1] * scale)
    return (size[0] - high) // 2, (size[1] - wide) // 2, high, wide


def in_image(corners, size, image, name):
    """Return x, y, w, h in the image of corners in the input."""
    top, left, *_ = place(size, image, name)
    if name == "rtdetr":
        down, across = size[0] / image[0], size[1] / image[1]
    else:
        down = across = min(size[0] / image[0], size[1] / image[1])
    x1, x2 = (min(max((x - left) / across, 0), image[1]) for x in corners[::2])
    y1, y2 = (min(max((y - top) / down, 0), image[0]) for y in corners[1::2])
    return [x1, y1, x2 - x1, y2 - y1]


def around(x, y, w, h):
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def iou(a, b):
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def persons(candidates, size, image, name, suppress):
    """Return the persons among (corners, score, class)."""
    rows = []
    for corners, score, label in candidates:
        box = in_image(corners, size, image, name)
        if label == 0 and score >= LEAST_SCORE and box[2] > 0 and box[3] > 0:
            rows.append([*box, float(score)])
    rows.sort(key=lambda row: -row[4])
    kept = []
    for row in rows:
        if not suppress or all(iou(row, other) <= MOST_IOU for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 5)


def yolo(outputs, size, image):
    (output,) = outputs.values()
    candidates = []
    for column in range(output.shape[2]):
        x, y, w, h, *scores = output[0, :, column].tolist()
        candidates.append((around(x, y, w, h), max(scores), scores.index(max(scores))))
    return persons(candidates, size, image, "yolo", True)


def yolo_nms(outputs, size, image):
    (output,) = outputs.values()
    candidates = [(row[:4], row[4], row[5]) for row in output[0].tolist()]
    return persons(candidates, size, image, "yolo_nms", False)


def yolox(outputs, size, image):
    (output,) = outputs.values()
    cells = []
    strides = (8, 16, 32) if len(output[0]) == cell_count(size, (8, 16, 32)) else (8, 16, 32, 64)
    for stride in strides:
        for row in range(size[0] // stride):
            for column in range(size[1] // stride):
                cells.append((row, column, stride))
    candidates = []
    for (row, column, stride), values in zip(cells, output[0].tolist(), strict=True):
        x, y, w, h, objectness, *scores = values
        box = (x + column) * stride, (y + row) * stride, math.exp(w) * stride, math.exp(h) * stride
        candidates.append((around(*box), objectness * max(scores), scores.index(max(scores))))
    return persons(candidates, size, image, "yolox", True)


def cell_count(size, strides):
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def rtdetr(outputs, size, image):
    candidates = []
    if "labels" in outputs:
        rows = zip(outputs["boxes"][0], outputs["scores"][0], outputs["labels"][0], strict=True)
        candidates = list(rows)
    elif "logits" in outputs:
        for logits, box in zip(outputs["logits"][0], outputs["pred_boxes"][0], strict=True):
            scores = [1 / (1 + math.exp(-value)) for value in logits]
            candidates.append((whole(box, size), max(scores), scores.index(max(scores))))
    else:
        (output,) = outputs.values()
        for row in output[0].tolist():
            if len(row) == 6:
                candidates.append((whole(row[:4], size), row[4], row[5]))
            else:
                scores = row[4:]
                candidates.append((whole(row[:4], size), max(scores), scores.index(max(scores))))
    return persons(candidates, size, image, "rtdetr", False)


def whole(box, size):
    x, y, w, h = (float(value) for value in box)
    return around(x * size[1], y * size[0], w * size[1], h * size[0])
