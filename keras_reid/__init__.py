"""Person re-identification for Keras and TensorFlow.

`import keras_reid` registers its models, layers, losses, distances and miners with Keras, and where
TensorFlow is the back end its learners too, so that models saved with them load. Its other parts
are imported when they are first used, and the losses run under any back end without TensorFlow.
"""

import importlib
from types import ModuleType

import keras

from keras_reid import layers, losses, outputs  # noqa: F401
from keras_reid.version import __version__

if keras.backend.backend() == "tensorflow":
    from keras_reid import training

__all__ = [
    "__version__",
    "backbones",
    "data",
    "distances",
    "errors",
    "evaluation",
    "gallery",
    "heads",
    "layers",
    "losses",
    "mining",
    "models",
    "report",
    "reranking",
    "serving",
    "tracking",
    "training",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
