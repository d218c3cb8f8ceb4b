"""From a trained embedder to files that other programs run."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_reid import models
from keras_reid.errors import InputError
from keras_reid.inference.fingerprints import fingerprint
from keras_reid.inference.metadata import Metadata, digest_of
from keras_reid.serving import formats, saved_model
from keras_reid.serving.bn_folding import constant, folded
from keras_reid.serving.registry import FORMATS, QUANTIZATIONS
from keras_reid.serving.versions import new_version


def export(
    model: keras.Model,
    directory: str | os.PathLike[str],
    version: int | None = None,
    flip: bool = False,
    local: bool = False,
    format: str = "saved_model",
    quantization: str = "float32",
    calibration: np.ndarray | None = None,
    about: dict[str, Any] | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Writes the exported model `directory/version/` and returns it.

    Batch normalizations are folded into the convolutions before them, and the weights are constants
    of the graph. There is one output `embedding`, float32 `(b, d)` of length 1, and with `local` a
    second one, `local` `(b, s, c)`, whose stripes are of length 1. `export.json` says what went
    in; see `keras_reid.inference.Metadata`.

    A SavedModel, which TensorFlow Serving loads, has two signatures and needs nothing but
    TensorFlow: `serving_default` takes `images`, uint8 RGB `(b, h, w, 3)` of any height and width;
    `serving_bytes` takes `image_bytes`, `(b,)` JPEG, PNG, BMP, GIF or WebP files of any sizes, and
    returns rows of NaN for files that do not decode. Both resize as
    `keras_reid.data.image_batches` does. `model.onnx`, `model.tflite` (LiteRT) and `model.xml`
    (OpenVINO) take `images`, uint8 RGB that have the network's size already. A model of several
    inputs, with body points or of tracklets, is exported as a SavedModel with `serving_default`
    alone, whose arguments are named as the model's inputs and have the network's size.

    A version appears complete or not at all, and is never replaced.

    Args:
        model: a model of `keras_reid.models.build`; its classifier is left out.
        directory: holds the versions of one model, and is made if it is missing.
        version: from 1; None takes the one after the last.
        flip: add the embedding of the mirror image, see `keras_reid.inference.load`.
        local: yield the model's output `local`, too; of a model without one,
            `keras_reid.models.stripes(model)` has.
        format: "saved_model", "onnx", "litert" or "openvino"; the others need the extra of their
            name.
        quantization: "float32"; for LiteRT also "float16" (weights) or "int8" (weights and
            activations).
        calibration: uint8 `(n, h, w, 3)` of the network's size, for "int8"; a hundred will do.
        about: plain values for `export.json`, such as data set and scores.
        check: is called with the whole export before it takes its place, where a server sees it;
            if it raises, nothing is left.

    Raises:
        InputError: the version exists, the folder cannot be made, the model is no embedder, an
            unknown format or quantization, or a package that is not installed.
    """
    if format not in FORMATS or quantization not in QUANTIZATIONS:
        raise InputError(
            f"formats are {', '.join(FORMATS)} in {', '.join(QUANTIZATIONS)}: received "
            f"{format!r} in {quantization!r}"
        )
    if quantization != "float32" and format != "litert":
        raise InputError(f"{quantization} is for the format litert: received {format!r}")
    size = models.image_size(model)
    several = isinstance(model.input, dict)
    if several and format != "saved_model":
        raise InputError(
            f"a model of {' and '.join(model.input)} is exported as saved_model, not {format!r}"
        )
    net = models.outputs_at_test(model, ("embedding", "local") if local else ("embedding",))
    unit = models.unit_outputs(constant(folded(net)), flip)
    stripes = net.output["local"].shape[1:] if local else None
    metadata = Metadata(
        format,
        quantization,
        size,
        int(net.output["embedding"].shape[-1]),
        flip,
        stripes,
        fingerprint(model, flip, quantization),
        about or {},
    )

    specs: Any = tf.TensorSpec((None, *size, 3), tf.uint8, "images")
    if several:
        specs = {name: tf.TensorSpec(x.shape, x.dtype, name) for name, x in model.input.items()}
    function = tf.function(unit, input_signature=[specs])

    def write(folder: Path) -> None:
        if format == "onnx":
            formats.write_onnx(function, folder)
        elif format == "openvino":
            formats.write_openvino(function, folder)
        elif format == "litert":
            formats.write_litert(function, folder, quantization, calibration)
        elif several:  # no batch may be empty
            tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": function})
        else:
            saved_model.write(unit, size, folder)
            saved_model.warm_up(folder, size, Path(directory).name)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        digests = {str(file.relative_to(folder)): digest_of(file) for file in files}
        replace(metadata, files=digests).write(folder)
        if check is not None:
            check(folder)

    return new_version(directory, version, write)
