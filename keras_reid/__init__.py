"""Person re-identification for Keras and TensorFlow."""

from keras_reid.version import __version__

__all__ = ["__version__"]
