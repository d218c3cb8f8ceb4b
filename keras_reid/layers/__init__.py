"""Layers that re-identification models are made of."""

from keras_reid.layers.registry import PUBLIC
from keras_reid.saving import attach

__getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
