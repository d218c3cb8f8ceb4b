"""Networks in OpenVINO IR, ONNX and LiteRT files, by OpenVINO."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.inference.network import Network


def opened(file: Path) -> Network:
    """Open an `.xml` file with its `.bin`, or an `.onnx` or `.tflite` file."""
    openvino = checks.installed("openvino", "openvino")
    core = openvino.Core()
    model = core.read_model(file)
    (port,) = model.inputs
    # On some processors the default is bfloat16.
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = tuple(output.get_any_name() for output in compiled.outputs)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, compiled(images).values(), strict=True))

    shape = [size.get_length() if size.is_static else None for size in port.partial_shape]
    dtype = np.dtype(port.element_type.to_dtype()).name
    return Network(shape, dtype, names, run, _stored(model))


def _stored(model: Any) -> dict[str, Any]:
    """Return the settings that the conversion put into the graph."""

    def converted(name: str) -> bool:
        return model.has_rt_info(["conversion_parameters", name])

    stored: dict[str, Any] = {}
    # The converter reverses the channels of networks that were trained on RGB.
    if converted("reverse_input_channels"):
        stored["channel_order"] = "bgr"
    if converted("mean_values") or converted("scale_values"):
        stored |= {"mean": 0.0, "scale": 1.0}
    return stored
