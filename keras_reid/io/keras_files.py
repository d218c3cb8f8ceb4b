"""Keras models in files."""

from typing import Any

import numpy as np

from keras_reid.io.reading import reading
from keras_reid.names import StrPath, expanded
from keras_reid.saving import load_model


def read_model(file: StrPath) -> Any:
    """Return the Keras model of a `.keras` file, without running code from the file.

    Raises:
        InputError: Keras cannot read the file, or rejects it as unsafe.
    """
    path = expanded(file)
    rule = "be a Keras model in a .keras file"
    with reading(path, rule, "Save or train it again.", Exception):  # h5py raises many kinds
        return channels_last(load_model(path, compile=False, safe_mode=True))


def channels_last(model: Any) -> Any:
    """Make a model independent of `keras.config.image_data_format` and return it.

    `keras.layers.Rescaling` reads the setting at each call if its scale is one number per channel.
    A scale (1, 1, c) has one meaning.
    """
    import keras

    for layer in getattr(model, "layers", ()):
        if isinstance(layer, keras.layers.Rescaling) and np.ndim(layer.scale) == 1:
            layer.scale = np.reshape(layer.scale, (1, 1, -1)).tolist()
        channels_last(layer)
    return model
