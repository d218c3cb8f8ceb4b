"""Networks in files, run by ONNX Runtime, OpenVINO or LiteRT."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.inference.preprocessing import Shape

ONNX_TYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True)
class Network:
    """An opened network with one input.

    Attributes:
        shape: shape of the input, with the batch; None: any size.
        dtype: dtype of the input, as NumPy names it.
        outputs: names of the outputs.
        run: function from an input to the outputs by name.
        stored: settings of the preprocessing that the file contains.
    """

    shape: Shape
    dtype: str
    outputs: tuple[str, ...]
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    stored: Mapping[str, Any] = field(default_factory=dict)


def onnx(file: Path) -> Network:
    """Open an `.onnx` file."""
    runtime = checks.installed("onnxruntime", "onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    names = tuple(output.name for output in session.get_outputs())

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {port.name: images}), strict=True))

    shape = [size if isinstance(size, int) else None for size in port.shape]
    kind = port.type.removeprefix("tensor(").removesuffix(")")
    return Network(shape, ONNX_TYPES.get(kind, kind), names, run)


def openvino(file: Path) -> Network:
    """Open an `.xml` file with its `.bin`, or an `.onnx` or `.tflite` file."""
    core = checks.installed("openvino", "openvino").Core()
    model = core.read_model(file)
    (port,) = model.inputs
    # On some processors the default is bfloat16.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = tuple(output.get_any_name() for output in compiled.outputs)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, compiled(images).values(), strict=True))

    def converted(name: str) -> bool:
        return model.has_rt_info(["conversion_parameters", name])

    stored: dict[str, Any] = {}
    # The converter reverses the channels of networks that were trained on RGB.
    if converted("reverse_input_channels"):
        stored["channel_order"] = "bgr"
    if converted("mean_values") or converted("scale_values"):
        stored |= {"mean": 0.0, "scale": 1.0}
    shape = [size.get_length() if size.is_static else None for size in port.partial_shape]
    return Network(shape, np.dtype(port.element_type.to_dtype()).name, names, run, stored)


def litert(file: Path) -> Network:
    """Open a `.tflite` file; the names of outputs are those of its signature, if it has one."""
    module = checks.installed("ai_edge_litert.interpreter", "litert")
    interpreter = module.Interpreter(model_path=str(file))
    (port,) = interpreter.get_input_details()
    outputs = {output["name"]: output for output in interpreter.get_output_details()}
    if len(interpreter.get_signature_list()) == 1:
        outputs = interpreter.get_signature_runner().get_output_details()
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

    shape = [int(size) if size > 0 else None for size in port["shape_signature"]]
    # A quantized input takes real numbers.
    dtype = "float32" if port["quantization"][0] else np.dtype(port["dtype"]).name
    return Network(shape, dtype, tuple(outputs), run)


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


OPENERS = {"onnx": onnx, "openvino": openvino, "litert": litert}
