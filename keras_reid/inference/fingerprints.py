"""Fingerprints: embedders with equal fingerprints return equal embeddings up to rounding."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_reid import models
from keras_reid.inference.metadata import PIXELS, digest_of

if TYPE_CHECKING:
    import keras

DIGITS = 16


def fingerprint(model: "keras.Model", flip: bool = False, precision: str = "float32") -> str:
    """Return 16 hexadecimal digits of weights, image size, mirroring and precision of a model.

    A run and its float32 exports have the same fingerprint. A gallery refuses embeddings with
    another fingerprint.

    Args:
        model: model of `keras_reid.models.build`.
        flip: whether the embedding of the mirrored image is added.
        precision: "float32", "float16" or "int8".
    """
    net = models.outputs_at_test(model)
    return weights_fingerprint(net.variables, (models.image_size(model), bool(flip), precision))


def weights_fingerprint(variables: "Iterable[keras.Variable]", settings: tuple[object, ...]) -> str:
    """Return 16 hexadecimal digits of weights and settings."""
    import keras

    digest = hashlib.sha256(repr((*settings, PIXELS)).encode())
    for variable in variables:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(variable), np.float32)
        digest.update(repr(value.shape).encode())
        digest.update(value.tobytes())
    return digest.hexdigest()[:DIGITS]


def file_fingerprint(files: Iterable[Path], preprocessing: object) -> str:
    """Return 16 hexadecimal digits of the contents of files and the preprocessing settings."""
    digest = hashlib.sha256(repr(preprocessing).encode())
    for file in files:
        digest.update(bytes.fromhex(digest_of(file)))
    return digest.hexdigest()[:DIGITS]
