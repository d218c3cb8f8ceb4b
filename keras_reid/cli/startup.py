"""Import of Keras in a command."""

import importlib
import sys
from typing import Any

# Keras imports these if they are installed, for features that no command uses.
OPTIONAL = {"IPython", "matplotlib", "pandas", "sklearn"}


def import_keras() -> Any:
    """Import and return Keras without its optional packages: a third of its import time."""
    hidden = OPTIONAL - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not importable
    try:
        return importlib.import_module("keras")
    finally:
        for name in hidden:
            del sys.modules[name]
