"""Registers with Keras what saved models are made of, as soon as Keras is there.

Galleries and scores need neither Keras nor TensorFlow, which take seconds to import, so
`import keras_reid` leaves them alone. Whoever loads a model imports Keras, before or after it: the
models, layers, losses and learners of this package are then imported too, not in the middle of an
import of one of its parts, but right after it.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from keras_reid.errors import InputError

BACKENDS = ("tensorflow", "jax", "torch", "openvino")  # packages, named as by KERAS_BACKEND


def register_with_keras() -> None:
    """Now, if Keras is imported already, and else when it has been."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Watch())


def check_backend() -> None:
    """Check the backend of the environment, before Keras does.

    Raises:
        InputError: `KERAS_BACKEND` names an unknown backend or one that is not installed.
    """
    name = os.environ.get("KERAS_BACKEND", "")
    if name and (name not in BACKENDS or importlib.util.find_spec(name) is None):
        state = "is not installed" if name in BACKENDS else "is unknown to Keras"
        raise InputError(
            f"`KERAS_BACKEND` must be one of {', '.join(BACKENDS)} and installed, got {name!r}, "
            f"which {state}. Commands, data and training need tensorflow."
        )


def _register() -> None:
    import keras

    learners = ["training"] if keras.backend.backend() == "tensorflow" else []
    for name in ("layers", "losses", "models", *learners):
        package = importlib.import_module(f"keras_reid.{name}")
        for public in package.__all__:  # packages import their modules when they are asked for them
            getattr(package, public)


class _Watch(MetaPathFinder):
    """Finds nothing itself, but tells when the outermost import of Keras or of a part has ended."""

    depth = 0

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras" and not name.startswith("keras_reid."):
            return None
        if name == "keras":
            check_backend()
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = self._told(spec.loader.exec_module)  # type: ignore[method-assign]
        return spec

    def _told(self, execute: Any) -> Any:
        def exec_module(module: ModuleType) -> None:
            self.depth += 1
            try:
                execute(module)
            finally:
                self.depth -= 1
            if self.depth == 0 and "keras" in sys.modules and self in sys.meta_path:
                sys.meta_path.remove(self)
                _register()

        return exec_module
