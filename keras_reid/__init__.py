"""Person re-identification for Keras and TensorFlow.

`import keras_reid` is light; its parts are imported when they are first used, so that the losses
run under any Keras back end without TensorFlow, and galleries without Keras. Where Keras is
imported, before or after, all that saved models and losses are made of is registered with it.
"""

import importlib
from types import ModuleType

from keras_reid.registration import register_with_keras
from keras_reid.version import __version__

__all__ = [
    "__version__",
    "data",
    "distances",
    "errors",
    "evaluation",
    "gallery",
    "inference",
    "layers",
    "losses",
    "mining",
    "models",
    "reranking",
    "scale",
    "serving",
    "tracking",
    "training",
    "visualize",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


register_with_keras()
