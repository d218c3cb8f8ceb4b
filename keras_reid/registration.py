"""Registers with Keras what saved models are made of, as soon as Keras is there.

Galleries and scores need neither Keras nor TensorFlow, which take seconds to import, so
`import keras_reid` leaves them alone. Whoever loads a model imports Keras, before or after it: the
models, layers, losses and learners of this package are then imported too, not in the middle of an
import of one of its parts, but right after it.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def register_with_keras() -> None:
    """Now, if Keras is imported already, and else when it has been."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Watch())


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
