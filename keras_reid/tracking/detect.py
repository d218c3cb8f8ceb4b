"""Persons in frames without detections: OpenCV's detector."""

from collections.abc import Callable, Iterable

import numpy as np

from keras_reid.data.frames import opencv
from keras_reid.data.mot import NOBODY, Boxes
from keras_reid.errors import InputError


def detect_persons(
    frames: Iterable[np.ndarray],
    scale: float = 1.05,
    least: float = 0.3,
    enlarge: float = 2.0,
    progress: Callable[[int], None] | None = None,
) -> Boxes:
    """Upright persons, by histograms of gradients and a linear classifier.

    It misses many and is no match for a trained detector: give the boxes of one if you can
    (Dalal and Triggs, CVPR 2005; the default people detector of OpenCV).

    Args:
        frames: uint8 RGB images (h, w, 3).
        scale: step between the sizes that are looked for.
        least: score of the classifier; it becomes the confidence.
        enlarge: factor by which frames are scaled first: the smallest persons that are found are 96
            pixels high then, and the time grows with its square.
        progress: called with the number of frames done.

    Raises:
        InputError: OpenCV is not installed, or it is of version 5, which has no such detector.
    """
    cv2 = opencv("detecting persons", "give detections")
    if not hasattr(cv2, "HOGDescriptor"):
        raise InputError(
            f"OpenCV {cv2.__version__} has no detector of persons: pip install "
            "'opencv-python<5', or give detections",
            "detections",
        )
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())
    numbers, boxes, scores = [], [], []
    for number, frame in enumerate(frames, start=1):
        image = cv2.resize(np.ascontiguousarray(frame[:, :, ::-1]), None, fx=enlarge, fy=enlarge)
        found, weights = detector.detectMultiScale(image, winStride=(8, 8), scale=scale)
        for box, weight in zip(found, np.ravel(weights), strict=True):
            if weight >= least:
                numbers.append(number)
                boxes.append(_tight(np.asarray(box, float)) / enlarge)
                scores.append(float(weight))
        if progress:
            progress(number)
    return Boxes(
        np.array(numbers, np.int64),
        np.full(len(numbers), NOBODY),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(scores, np.float64),
    )


def _tight(box: np.ndarray) -> np.ndarray:
    """Without the margin of 16 of 64×128 pixels around the persons it was trained on."""
    x, y, w, h = box
    return np.array([x + w / 5, y + h / 8, 3 * w / 5, 3 * h / 4])
