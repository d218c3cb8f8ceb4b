"""Frozen graphs of detectors for ONNX Runtime, converted once into the user's cache folder."""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from absl import logging

from keras_reid.detection.networks import OUTPUTS, frozen_graph
from keras_reid.detection.windows import Network
from keras_reid.errors import InputError
from keras_reid.inference.metadata import digest_of
from keras_reid.io import replaced_file
from keras_reid.names import expanded

CACHE = "~/.cache/keras_reid"
TOLERANCE = 1e-4  # of scores


def is_converted(path: str | os.PathLike[str]) -> bool:
    """Return True if ONNX Runtime can run a graph without TensorFlow."""
    return find_spec("onnxruntime") is not None and _cached(path).is_file()


def converted_graph(path: str | os.PathLike[str]) -> Network:
    """`frozen_graph`, run by ONNX Runtime; only the first call imports TensorFlow, to convert it.

    Without the packages of the extra `onnx`, or if the cache folder cannot be written, TensorFlow
    runs the graph.

    Args:
        path: see `frozen_graph`.

    Raises:
        InputError: as `frozen_graph`.
    """
    file = _cached(path)
    if find_spec("onnxruntime") is None:
        return frozen_graph(path)
    if not file.is_file():
        original = frozen_graph(path)
        try:
            return original if find_spec("tf2onnx") is None else _convert(path, file, original)
        except (InputError, OSError):  # the cache folder cannot be written
            return original
    return _onnx(file)


def _cached(path: str | os.PathLike[str]) -> Path:
    return expanded(CACHE) / f"{digest_of(expanded(path))[:16]}.onnx"


def _convert(path: str | os.PathLike[str], file: Path, original: Network) -> Network:
    """Write the converted graph if its scores are those of the original; return the faster one."""
    import tensorflow as tf

    logging.warning("converting the detector for ONNX Runtime, once, to %s", file)
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(expanded(path).read_bytes())
    outputs = [f"{name}:0" for name in OUTPUTS]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(file) as partial:
        import_module("tf2onnx.convert").from_graph_def(
            graph,
            input_names=["image_tensor:0"],
            output_names=outputs,
            opset=13,
            output_path=str(partial),
        )
    network = _onnx(file)
    squares = np.random.default_rng(0).integers(0, 256, (2, 300, 300, 3), np.uint8)
    difference = np.abs(network(squares)[1] - original(squares)[1]).max()
    if difference > TOLERANCE:
        file.unlink()
        logging.warning("not converted: scores differ by %.2g", difference)
        return original
    return network


def _onnx(file: Path) -> Network:
    runtime = import_module("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [f"{name}:0" for name in OUTPUTS]

    def network(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores, classes = session.run(names, {session.get_inputs()[0].name: squares})
        return boxes, np.where(classes == 1, scores, 0)

    return network
