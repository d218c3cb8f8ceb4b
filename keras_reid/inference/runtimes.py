"""Networks in files, run by ONNX Runtime, OpenVINO or LiteRT."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.inference.preprocessing import Shape

BLOCK = 4  # images that one thread embeds at a time
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
        parallel: True if several threads can call `run` at a time.
    """

    shape: Shape
    dtype: str
    outputs: tuple[str, ...]
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    stored: Mapping[str, Any] = field(default_factory=dict)
    parallel: bool = True


def onnx(file: Path) -> Network:
    """Open an `.onnx` file."""
    runtime = checks.installed("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    # Waiting threads would take the cores of other blocks and of the decoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
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
    if port.partial_shape.rank.is_static and port.partial_shape[0].is_dynamic:
        # A fixed batch takes three quarters of the time.
        model.reshape([BLOCK, *list(port.partial_shape)[1:]])
    # On some processors the default is bfloat16. Several blocks run at a time, in threads.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = core.compile_model(model, "CPU", settings)
    names = tuple(output.get_any_name() for output in compiled.outputs)
    local = threading.local()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        values = local.request.infer([images]).values()
        return {name: np.array(value) for name, value in zip(names, values, strict=True)}

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
    return Network(shape, dtype, tuple(outputs), run, parallel=False)


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
