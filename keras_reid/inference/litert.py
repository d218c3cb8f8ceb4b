"""Networks in `.tflite` files, by LiteRT."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.inference.network import Network


def opened(file: Path) -> Network:
    """Open a `.tflite` file: its first signature, or the whole graph without signatures."""
    module = checks.installed("ai_edge_litert.interpreter", "litert")
    interpreter = module.Interpreter(model_path=str(file))
    signatures = interpreter.get_signature_list()
    return _of_signature(interpreter, next(iter(signatures))) if signatures else _whole(interpreter)


def _of_signature(interpreter: Any, signature: str) -> Network:
    runner = interpreter.get_signature_runner(signature)
    ((name, port),) = runner.get_input_details().items()
    outputs = runner.get_output_details()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        results = runner(**{name: _quantized(images, port)})
        return {key: _real(value, outputs[key]) for key, value in results.items()}

    return Network(_shape(port), _dtype(port), tuple(outputs), run)


def _whole(interpreter: Any) -> Network:
    (port,) = interpreter.get_input_details()
    outputs = {output["name"]: output for output in interpreter.get_output_details()}
    interpreter.allocate_tensors()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        if tuple(interpreter.get_input_details()[0]["shape"]) != images.shape:
            interpreter.resize_tensor_input(port["index"], images.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(port["index"], _quantized(images, port))
        interpreter.invoke()
        return {
            name: _real(interpreter.get_tensor(output["index"]), output)
            for name, output in outputs.items()
        }

    return Network(_shape(port), _dtype(port), tuple(outputs), run)


def _shape(port: dict[str, Any]) -> list[int | None]:
    return [int(size) if size > 0 else None for size in port["shape_signature"]]


def _dtype(port: dict[str, Any]) -> str:
    """Return the type of the values: real numbers for a quantized input."""
    return "float32" if port["quantization"][0] else np.dtype(port["dtype"]).name


def _quantized(values: np.ndarray, port: dict[str, Any]) -> np.ndarray:
    step, zero = port["quantization"]
    if not step:
        return values
    limits = np.iinfo(port["dtype"])
    levels = np.clip(np.round(values / step) + zero, limits.min, limits.max)
    return levels.astype(port["dtype"])


def _real(levels: np.ndarray, port: dict[str, Any]) -> np.ndarray:
    step, zero = port["quantization"]
    return levels if not step else ((levels.astype(np.float32) - zero) * step)
