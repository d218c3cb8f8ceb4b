"""Layers that re-identification models are made of."""

from keras_reid.saving import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
