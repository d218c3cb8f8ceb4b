"""Writers of ONNX, LiteRT and OpenVINO files: one function from pixels to the outputs."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError

OPSET = 17


def write_onnx(unit: Callable[[Any], dict[str, Any]], size: tuple[int, int], folder: Path) -> None:
    """Write `model.onnx`."""
    tf2onnx = checks.installed("tf2onnx", "onnx")
    function, spec = _function(unit, size)
    tf2onnx.convert.from_function(
        function, input_signature=[spec], opset=OPSET, output_path=str(folder / "model.onnx")
    )


def write_openvino(
    unit: Callable[[Any], dict[str, Any]], size: tuple[int, int], folder: Path
) -> None:
    """Write `model.xml` and `model.bin`."""
    openvino = checks.installed("openvino", "openvino")
    write_onnx(unit, size, folder)
    file = folder / "model.onnx"
    openvino.save_model(openvino.convert_model(file), folder / "model.xml", compress_to_fp16=False)
    file.unlink()


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


def _function(unit: Callable[[Any], dict[str, Any]], size: tuple[int, int]) -> Any:
    spec = tf.TensorSpec((None, *size, 3), tf.uint8, name="images")
    return tf.function(unit, input_signature=[spec]), spec
