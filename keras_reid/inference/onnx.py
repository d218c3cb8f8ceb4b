"""Networks in ONNX files, by ONNX Runtime."""

from pathlib import Path

import numpy as np

from keras_reid import checks
from keras_reid.inference.network import Network

TYPES = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8"}


def opened(file: Path) -> Network:
    """Open an `.onnx` file."""
    runtime = checks.installed("onnxruntime", "onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    names = tuple(output.name for output in session.get_outputs())

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {port.name: images}), strict=True))

    shape = [size if isinstance(size, int) else None for size in port.shape]
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    return Network(shape, TYPES.get(kind, kind), names, run)
