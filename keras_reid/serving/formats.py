"""SavedModel, ONNX, LiteRT and OpenVINO files, written by `keras.Model.export`."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.inference.loading import SUFFIXES

KERAS = {"saved_model": "tf_saved_model"}  # names in Keras that differ
PACKAGES = {"onnx": "tf2onnx", "openvino": "openvino"}


def write(
    model: keras.Model,
    folder: Path,
    format: str,
    quantization: str,
    calibration: np.ndarray | None,
) -> None:
    """Write a model in one of `keras_reid.serving.FORMATS`; images calibrate int8."""
    options: dict[str, Any] = {}
    if not isinstance(model.input, dict):  # the default requires a model that has been called
        spec = tf.TensorSpec(model.input.shape, model.input.dtype, "images")
        options["input_signature"] = [spec]
    if format in PACKAGES:  # Keras raises an error without the command that installs it
        checks.installed(PACKAGES[format], format)
    if format == "litert":
        # Keras also admits TensorFlow operations, which the runtime ai_edge_litert does not have.
        target: dict[str, Any] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
        if quantization == "float16":
            target["supported_types"] = [tf.float16]
        options["target_spec"] = target
        if quantization != "float32":
            options["optimizations"] = [tf.lite.Optimize.DEFAULT]
        if quantization == "int8":
            images = () if calibration is None else calibration
            checks.at_least(1, "Pass images to calibrate int8.", calibration=len(images))
            options["representative_dataset"] = lambda: ([image[None]] for image in images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Keras reads `np.object` for tf2onnx
        file = str(folder / f"model{SUFFIXES[format]}" if format in SUFFIXES else folder)
        model.export(file, KERAS.get(format, format), verbose=False, **options)
