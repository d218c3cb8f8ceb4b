"""Losses for person re-identification, all `keras.losses.Loss`: they work in a plain `fit`."""

from keras_reid.losses.registry import PUBLIC
from keras_reid.saving import attach

__getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
