"""What the phases of a training with refined parts change in the models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras

from keras_reid.layers import PartPooling
from keras_reid.training.recipes import Phase


@contextmanager
def prepared(members: Sequence[keras.Model], phase: Phase) -> Iterator[None]:
    """Parts are refined or not as the phase says, and within the block only what it trains can be.

    Without parts nothing changes.
    """
    layers = [layer for model in members for layer in model.layers]
    parts = [layer for layer in layers if isinstance(layer, PartPooling)]
    for layer in parts:
        if layer.refinable:
            layer.refined.assign(float(phase.refined))
    others = [layer for layer in layers if layer.trainable and layer not in parts]
    frozen = others if phase.only_assignment else []
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True
