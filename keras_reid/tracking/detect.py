"""Detection of persons in the frames of a video."""

from collections.abc import Callable, Iterable

import numpy as np

from keras_reid import checks
from keras_reid.data.mot import UNLABELED, Boxes
from keras_reid.detection import Detector, detector_of


def detect_persons(
    frames: Iterable[np.ndarray],
    detector: Detector | None = None,
    progress: Callable[[int], None] | None = None,
) -> Boxes:
    """Return the boxes of persons in all frames.

    Args:
        frames: uint8 RGB images (h, w, 3).
        detector: function of one frame; None: `keras_reid.detection.detector_of()`.
        progress: called with the number of processed frames.

    Returns:
        n boxes in pixels, ordered by frame, without identities.

    Raises:
        InputError: there is no detector, or a frame has values that uint8 cannot represent.

    Example:
        >>> import numpy as np
        >>> from keras_reid import tracking
        >>> frames = np.zeros((2, 100, 80, 3), np.uint8)
        >>> def detector(frame):
        ...     return np.array([[10, 20, 30, 60]]), np.array([0.9])
        >>> tracking.detect_persons(frames, detector).frame.tolist()
        [1, 2]
    """
    detector = detector or detector_of()
    numbers, boxes, scores = [np.zeros(0, np.int64)], [np.zeros((0, 4))], [np.zeros(0)]
    for number, image in enumerate(frames, start=1):
        box, score = detector(checks.pixels(image, "frame"))
        numbers.append(np.full(len(box), number))
        boxes.append(np.asarray(box, np.float64).reshape(-1, 4))
        scores.append(np.asarray(score, np.float64))
        if progress:
            progress(number)
    frame = np.concatenate(numbers)
    identity = np.full(len(frame), UNLABELED)
    return Boxes(frame, identity, np.concatenate(boxes), np.concatenate(scores))
