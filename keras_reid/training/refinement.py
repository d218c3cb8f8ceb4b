"""What the phases of a training with refined parts change in the models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras

from keras_reid.layers import PartPooling


def set_refined(members: Sequence[keras.Model], refined: bool) -> None:
    """Lets all parts be stripes, or be what was learned; without parts nothing."""
    for layer in _layers(members):
        if isinstance(layer, PartPooling) and layer.refinable:
            layer.refined.assign(float(refined))


@contextmanager
def assignment_alone(members: Sequence[keras.Model]) -> Iterator[None]:
    """Within the block only the assignment of pixels to parts can be trained."""
    frozen = [
        layer
        for layer in _layers(members)
        if layer.trainable and not isinstance(layer, PartPooling)
    ]
    for layer in frozen:
        layer.trainable = False
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = True


def _layers(members: Sequence[keras.Model]) -> list[keras.layers.Layer]:
    return [layer for model in members for layer in model.layers]
