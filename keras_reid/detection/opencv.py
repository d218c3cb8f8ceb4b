"""OpenCV's detector of persons."""

from collections.abc import Callable

import numpy as np

from keras_reid import checks
from keras_reid.detection.windows import MIN_SCORE
from keras_reid.errors import InputError


def hog() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return OpenCV's detector of upright persons (Dalal and Triggs, CVPR 2005).

    It classifies histograms of oriented gradients by a linear SVM, and its score is the confidence.
    Frames are enlarged 2 times, so that persons of 48 pixels are detected.

    Raises:
        InputError: OpenCV is not installed, or its version 5 or later has no such detector.
    """
    cv2 = checks.installed("cv2", "tracking")
    if not hasattr(cv2, "HOGDescriptor"):
        raise InputError(
            f"The detector hog needs OpenCV below 5, got OpenCV {cv2.__version__}. Run pip install "
            "'opencv-python<5', or pass detections.",
            "detector",
        )
    descriptor = cv2.HOGDescriptor()
    descriptor.setSVMDetector(cv2.HOGDescriptor_getDefaultPeopleDetector())

    def detect(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        image = cv2.resize(np.ascontiguousarray(frame[:, :, ::-1]), None, fx=2, fy=2)
        rectangles, weights = descriptor.detectMultiScale(image, winStride=(8, 8), scale=1.05)
        kept = np.ravel(weights) >= MIN_SCORE
        x, y, w, h = np.asarray(rectangles, float).reshape(-1, 4)[kept].T
        # Without the margin of 16 of 64×128 pixels around the persons of its training images.
        boxes = np.stack([x + w / 5, y + h / 8, 3 * w / 5, 3 * h / 4], 1) / 2
        return boxes, np.ravel(weights)[kept]

    return detect
