"""Export of a trained embedder to files that other programs run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_reid import checks, models
from keras_reid.errors import invalid
from keras_reid.inference.fingerprints import fingerprint
from keras_reid.inference.metadata import Metadata, digest_of
from keras_reid.names import StrPath
from keras_reid.serving import formats, saved_model
from keras_reid.serving.bn_folding import constant, folded
from keras_reid.serving.registry import FORMATS, QUANTIZATIONS
from keras_reid.serving.versions import new_version


# The options of an export are arguments, which commands and notebooks pass by name.
def export(
    model: keras.Model,
    directory: StrPath,
    version: int | None = None,
    flip: bool = False,
    local: bool = False,
    format: str = "saved_model",
    quantization: str = "float32",
    calibration: np.ndarray | None = None,
    about: dict[str, Any] | None = None,
    check: Callable[[Path], None] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the exported model `directory/version/` and return its path.

    Batch normalizations are folded into the preceding convolutions. The output `embedding` is
    float32 `(b, d)` with rows of length 1. With `local` there is a second output `local`
    `(b, s, c)` with stripes of length 1. `export.json` contains the settings, see
    `keras_reid.inference.Metadata`.

    A SavedModel for TensorFlow Serving needs TensorFlow only and has two signatures:

    - `serving_default` takes `images`, uint8 RGB `(b, h, w, 3)` of any height and width.
    - `serving_bytes` takes `image_bytes`, `(b,)` JPEG, PNG, BMP, GIF or WebP files of any sizes.
      It returns rows of NaN for files that cannot be decoded.

    Both resize as `keras_reid.data.image_batches` does. `model.onnx`, `model.tflite` (LiteRT) and
    `model.xml` (OpenVINO) take `images`, uint8 RGB of the network's size. A model of several
    inputs, such as body points or tracklets, is exported as a SavedModel with `serving_default`
    only. Its arguments have the names and sizes of the model's inputs.

    A version is written atomically. A server that runs does not load a replaced version again.

    Args:
        model: model of `keras_reid.models.build`; its classifier is left out.
        directory: folder of all versions of one model; it is created if missing.
        version: number from 1; None: the number after the last one.
        flip: add the embedding of the mirror image, see `keras_reid.inference.load`.
        local: also export the model's output `local`. `keras_reid.models.stripes(model)` adds such
            an output.
        format: "saved_model", or "onnx", "litert" or "openvino", which need the extra of the same
            name.
        quantization: "float32"; for LiteRT also "float16" (weights) or "int8" (weights and
            activations).
        calibration: uint8 `(n, h, w, 3)` of the network's size, for "int8". About 100 images are
            enough.
        about: JSON values for `export.json`, such as data set and scores.
        check: called with the complete folder before it is published. If it raises, nothing is
            left.
        overwrite: replace an existing version.

    Raises:
        InputError: the version exists without `overwrite`, the folder cannot be created, the model
            is not an embedder, the format or quantization is unknown, or a package is not
            installed.

    See the guide to serving (docs/serving.md) for servers and clients.
    """
    checks.one_of(FORMATS, format=format)
    available = QUANTIZATIONS if format == "litert" else QUANTIZATIONS[:1]
    checks.one_of(available, "The format litert has all of them.", quantization=quantization)
    if isinstance(model.input, dict) and format != "saved_model":
        raise invalid("format", f"saved_model for inputs {', '.join(model.input)}", format)
    net = models.outputs_at_test(model, ("embedding", "local") if local else ("embedding",))
    metadata = Metadata(
        format,
        quantization,
        models.image_size(model),
        int(net.output["embedding"].shape[-1]),
        flip,
        net.output["local"].shape[1:] if local else None,
        fingerprint(model, flip, quantization),
        about or {},
    )

    def write(folder: Path) -> None:
        _write_network(folded(net), metadata, folder, Path(directory).name, calibration)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        digests = {str(file.relative_to(folder)): digest_of(file) for file in files}
        replace(metadata, files=digests).write(folder)
        if check is not None:
            check(folder)

    return new_version(directory, version, write, overwrite)


def _write_network(
    net: keras.Model, metadata: Metadata, folder: Path, name: str, calibration: np.ndarray | None
) -> None:
    """Write the files of a network; `name` is that of the served model."""
    if metadata.format == "saved_model" and not isinstance(net.input, dict):
        unit = models.unit_outputs(constant(net), metadata.flip)
        saved_model.write(unit, metadata.image_size, folder)
        saved_model.warm_up(folder, metadata.image_size, name)
    else:
        unit = models.unit_outputs(net, metadata.flip)
        single = keras.Model(net.input, unit(net.input))
        formats.write(single, folder, metadata.format, metadata.precision, calibration)
