"""Detectors in ONNX files."""

import ast
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.detection.formats import FORMATS, Format, Size, recognized
from keras_reid.detection.suppression import without_overlaps
from keras_reid.detection.windows import MIN_SCORE
from keras_reid.errors import Shown, invalid
from keras_reid.io import parsing
from keras_reid.names import expanded

SIDE = 640  # of an input of any size, in pixels


class OnnxModel(NamedTuple):
    """An opened detector.

    Attributes:
        session: session of ONNX Runtime.
        size: (height, width) of the input in pixels.
        format: format of the outputs.
        classes: names of the classes; empty if unknown.
    """

    session: Any
    size: Size
    format: Format
    classes: tuple[str, ...]


def onnx(
    path: str | os.PathLike[str], format: str | None = None
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return the detector of an ONNX file; see `keras_reid.detection.detector_of`.

    The input is (1, 3, h, w). If the file does not fix h and w, the size is 640×640.

    Args:
        path: path of the file.
        format: key of `FORMATS`; None: recognized from the shapes and names of the outputs.

    Raises:
        InputError: ONNX Runtime is not installed, the file is missing or broken, or the format is
            unknown.
    """
    runtime = checks.installed("onnxruntime", "onnx")
    if format is not None:
        checks.one_of(FORMATS, detector_format=format)
    rule, fix = "be an ONNX model of images (1, 3, h, w)", "Export it again."
    with parsing(path, rule, fix, Exception):  # ONNX Runtime raises many types
        file = Path(expanded(path))
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        _, _, *sides = session.get_inputs()[0].shape
        height, width = (side if isinstance(side, int) else SIDE for side in sides)
        outputs = _outputs(session, np.zeros((height, width, 3), np.float32))
    metadata = session.get_modelmeta().custom_metadata_map
    shapes = {name: output.shape for name, output in outputs.items()}
    name = format or recognized(shapes, (height, width), metadata)
    if name is None:
        rule = f"a model of the format {', '.join(FORMATS)}"
        received = Shown(f"outputs {shapes} of {path}")
        raise invalid("detector", rule, received, "Pass the format.")
    model = OnnxModel(session, (height, width), FORMATS[name], _classes(metadata))
    return partial(detect, model)


def detect(model: OnnxModel, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (n, 4) as x, y, w, h in pixels and scores (n,) of the persons of an image.

    Args:
        model: opened detector.
        image: uint8 RGB (h, w, 3).
    """
    kind, size = model.format, (image.shape[0], image.shape[1])
    letterbox = kind.fit(size, model.size)
    pixels = letterbox.filled(image)[..., :: -1 if kind.bgr else 1].astype(np.float32)
    outputs = _outputs(model.session, pixels / kind.divisor)
    decoded = kind.decode(outputs, model.size, len(model.classes) or None)
    person = model.classes.index("person") if "person" in model.classes else 0
    kept = (decoded.label == person) & (decoded.score >= MIN_SCORE)
    boxes = letterbox.restored(decoded.corners[kept].astype(float), size)
    scores, inside = decoded.score[kept].astype(float), boxes[:, 2:].min(axis=1, initial=1) > 0
    if kind.suppressed:
        return boxes[inside], scores[inside]
    return without_overlaps(boxes[inside], scores[inside])


def _outputs(session: Any, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return all outputs for one input, float32 (h, w, 3)."""
    names = [port.name for port in session.get_outputs()]
    image, *others = session.get_inputs()
    dtype = np.float16 if image.type == "tensor(float16)" else np.float32
    inputs = {image.name: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], dtype)}
    for port in others:  # RT-DETR scales its boxes by (width, height)
        inputs[port.name] = np.array([pixels.shape[1::-1]], np.int64)
    return dict(zip(names, session.run(names, inputs), strict=True))


def _classes(metadata: dict[str, str]) -> tuple[str, ...]:
    """Return the names of the classes in the metadata, such as `{0: 'person'}`."""
    try:
        names = ast.literal_eval(metadata.get("names", "{}"))
        return tuple(str(names[number]) for number in range(len(names)))
    except (ValueError, SyntaxError, KeyError, TypeError):
        return ()
