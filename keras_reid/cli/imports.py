"""Commands do not wait for what Keras imports for others."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType

# Keras imports these where they are installed, for a third of the time of its own import: it draws
# with the first, wraps models for the second, prints in notebooks by the third and takes tables of
# the last.
UNUSED = frozenset({"matplotlib", "sklearn", "IPython", "pandas"})


def keras_alone() -> None:
    """From now on Keras finds none of UNUSED, as if they were not installed; all others do."""
    sys.meta_path.insert(0, _Hidden())


class _Hidden(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in UNUSED and _importer().startswith("keras."):
            raise ModuleNotFoundError(f"{name} is hidden from Keras", name=name)
        return None


def _importer() -> str:
    """The module whose import is being served."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name != __name__ and name.partition(".")[0] != "importlib":
            return name
        frame = frame.f_back
    return ""
