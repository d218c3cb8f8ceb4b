"""Losses for person re-identification, all `keras.losses.Loss`: they work in a plain `fit`."""

from keras_reid.saving import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
