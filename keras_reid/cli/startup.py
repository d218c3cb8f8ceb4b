"""Import of Keras in a command."""

import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Keras imports these if they are installed, for features that no command uses.
OPTIONAL = {"IPython", "matplotlib", "pandas", "sklearn"}
# Lines that TensorFlow prints at its import whatever its log level is: information and warnings,
# and the error 303 of a machine without a CUDA driver.
STARTUP = re.compile(rb"WARNING: All log messages before|[IW]\d{4} |E\d{4} .*cuInit.*\(303\)")


def import_keras() -> Any:
    """Import and return Keras without the packages in `OPTIONAL`, which lengthen its import."""
    hidden = OPTIONAL - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not importable
    try:
        with _without_startup_lines():
            keras = importlib.import_module("keras")
            importlib.import_module("tensorflow").config.list_physical_devices()
        return keras
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _without_startup_lines() -> Iterator[None]:
    """Print what C++ code writes to stderr at the end, without the lines of `STARTUP`."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            for line in file:
                if not STARTUP.match(line):
                    os.write(2, line)
