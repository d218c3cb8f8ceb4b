"""Losses for person re-identification, all `keras.losses.Loss`: they work in a plain `fit`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
