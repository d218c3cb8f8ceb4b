"""ONNX, LiteRT and OpenVINO: one function from pixels of the network's size to its outputs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError

Function = Callable[[np.ndarray], dict[str, np.ndarray]]
OPSET = 17


def write_onnx(unit: Callable[[Any], dict[str, Any]], size: tuple[int, int], folder: Path) -> None:
    """Writes `model.onnx`."""
    tf2onnx = _needed("tf2onnx", "onnx")
    function, spec = _function(unit, size)
    tf2onnx.convert.from_function(
        function, input_signature=[spec], opset=OPSET, output_path=str(folder / "model.onnx")
    )


def run_onnx(folder: Path) -> Function:
    """What an ONNX file computes, by ONNX Runtime."""
    runtime = _needed("onnxruntime", "onnx")
    session = runtime.InferenceSession(
        str(folder / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    (given,) = (given.name for given in session.get_inputs())
    return lambda images: dict(zip(names, session.run(names, {given: images}), strict=True))


def write_openvino(
    unit: Callable[[Any], dict[str, Any]], size: tuple[int, int], folder: Path
) -> None:
    """Writes `model.xml` and `model.bin`."""
    openvino = _needed("openvino", "openvino")
    write_onnx(unit, size, folder)
    file = folder / "model.onnx"
    openvino.save_model(openvino.convert_model(file), folder / "model.xml", compress_to_fp16=False)
    file.unlink()


def run_openvino(folder: Path) -> Function:
    """What an OpenVINO file computes."""
    openvino = _needed("openvino", "openvino")
    # On some processors the default is bfloat16.
    compiled = openvino.Core().compile_model(
        folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, compiled(images).values(), strict=True))

    return run


def write_litert(
    unit: Callable[[Any], dict[str, Any]],
    size: tuple[int, int],
    folder: Path,
    quantization: str = "float32",
    calibration: np.ndarray | None = None,
) -> None:
    """Weights in half precision, or weights and activations in 8 bits, as calibrated by images."""
    function, _ = _function(unit, size)
    saved = folder / "saved_model"  # which keeps the names of inputs and outputs
    tf.saved_model.save(tf.Module(), str(saved), signatures={"serving_default": function})
    (folder / "model.tflite").write_bytes(_converted(str(saved), quantization, calibration))
    shutil.rmtree(saved)


def _converted(saved: str, quantization: str, calibration: np.ndarray | None) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved)
    if quantization != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":
        if calibration is None or not len(calibration):
            raise InputError("8 bits are calibrated on images: pass some as calibration")
        images = calibration

        def samples() -> Iterator[list[np.ndarray]]:
            for image in images:
                yield [image[None]]

        converter.representative_dataset = samples
    return converter.convert()


def run_litert(folder: Path) -> Function:
    """What a LiteRT file computes."""
    module = _needed("ai_edge_litert.interpreter", "litert")
    interpreter = module.Interpreter(model_path=str(folder / "model.tflite"))
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: dict(runner(images=images))


def _function(unit: Callable[[Any], dict[str, Any]], size: tuple[int, int]) -> Any:
    spec = tf.TensorSpec((None, *size, 3), tf.uint8, name="images")
    return tf.function(unit, input_signature=[spec]), spec


def _needed(module: str, extra: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"this format needs {module.partition('.')[0]}: run pip install '.[{extra}]' in the "
            "checkout"
        ) from error


RUNNERS: dict[str, Callable[[Path], Function]] = {
    "onnx": run_onnx,
    "litert": run_litert,
    "openvino": run_openvino,
}
