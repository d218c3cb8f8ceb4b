"""Loading of saved models, and registration of this package's classes with Keras."""

import importlib
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

if TYPE_CHECKING:
    import keras


def load_model(
    filepath: str | Path,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> "keras.Model":
    """Load a `.keras` file with layers, losses or models of this package, in any process.

    Keras finds a class of a saved model only after the class was imported. This function imports
    all classes of the package, then calls `keras.saving.load_model` with the same arguments.

    Args:
        filepath: the `.keras` file.
        custom_objects: classes and functions by name that are not registered with Keras.
        compile: restore the optimizer and the losses.
        safe_mode: refuse to deserialize Python lambdas.

    Returns:
        The model, compiled if the file has a compiled one.

    Raises:
        ValueError: the file does not exist or is not a model, as in Keras.
    """
    import keras

    register(training=True)
    return keras.saving.load_model(filepath, custom_objects, compile, safe_mode)


def register(training: bool = False) -> None:
    """Import the modules that define serializable classes, which registers the classes with Keras.

    Args:
        training: include `keras_reid.training`, which needs the TensorFlow backend and is left out
            under other backends.
    """
    import keras

    packages = ["layers", "losses"]
    if training and keras.backend.backend() == "tensorflow":
        packages.append("training")
    for package in packages:
        folder = Path(__file__).parent / package
        for module in pkgutil.iter_modules([str(folder)]):
            importlib.import_module(f"keras_reid.{package}.{module.name}")
    importlib.import_module("keras_reid.models.reid_model")


def attach_stub(package: str, file: str) -> Any:
    """`lazy_loader.attach_stub` of a package with serializable classes, see `attach`."""
    return _registering(package, lazy_loader.attach_stub(package, file))


def attach(package: str, names: Mapping[str, Sequence[str]]) -> Any:
    """`lazy_loader.attach` of the names of modules of a package with serializable classes.

    The first name that imports Keras registers the classes of all modules, because a saved model
    may contain any of them. The training classes are registered by names of `keras_reid.training`
    only: their modules use names of the other packages while they are imported.
    """
    return _registering(package, lazy_loader.attach(package, submod_attrs=names))


def _registering(package: str, attached: Any) -> Any:
    getter, directory, names = attached

    def __getattr__(name: str) -> Any:
        value = getter(name)
        if "keras" in sys.modules:
            register(training=package == "keras_reid.training")
        return value

    return __getattr__, directory, names
