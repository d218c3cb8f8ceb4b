"""Person re-identification for Keras and TensorFlow.

`import keras_reid` is light: its packages are imported on first use, so that the losses run under
any Keras backend without TensorFlow, and galleries without Keras.
"""

import sys

import lazy_loader

from keras_reid.saving import load_model as load_model
from keras_reid.saving import register
from keras_reid.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    [
        *("data", "detection", "distances", "errors", "evaluation", "gallery", "inference"),
        *("layers", "losses", "mining", "models", "reranking", "scale", "serving", "tracking"),
        *("training", "visualize"),
    ],
    {"saving": ["load_model"], "version": ["__version__"]},
)

if "keras" in sys.modules:  # Keras then finds the classes of saved models
    register(training=True)
