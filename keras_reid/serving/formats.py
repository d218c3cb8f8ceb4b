"""Writers of ONNX, LiteRT and OpenVINO files: one function from pixels to the outputs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError

OPSET = 17


def write_onnx(function: Any, folder: Path) -> None:
    """Write a `tf.function` as `model.onnx`."""
    checks.installed("tf2onnx", "onnx").convert.from_function(
        function,
        input_signature=function.input_signature,
        opset=OPSET,
        output_path=str(folder / "model.onnx"),
    )


def write_openvino(function: Any, folder: Path) -> None:
    """Write a `tf.function` as `model.xml` and `model.bin`."""
    openvino = checks.installed("openvino", "openvino")
    write_onnx(function, folder)
    file = folder / "model.onnx"
    openvino.save_model(openvino.convert_model(file), folder / "model.xml", compress_to_fp16=False)
    file.unlink()


def write_litert(
    function: Any, folder: Path, quantization: str, calibration: np.ndarray | None
) -> None:
    """Write a `tf.function` as `model.tflite`; images calibrate int8."""
    if quantization == "int8" and (calibration is None or not len(calibration)):
        raise InputError("8 bits are calibrated on images: pass some as calibration")
    images = () if calibration is None else calibration

    def samples() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[None]]

    saved = folder / "saved_model"  # which keeps the names of inputs and outputs
    tf.saved_model.save(tf.Module(), str(saved), signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    if quantization != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":
        converter.representative_dataset = samples
    (folder / "model.tflite").write_bytes(converter.convert())
    shutil.rmtree(saved)
