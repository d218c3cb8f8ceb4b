"""Objects by name that are imported on use: flags list the names without importing Keras."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import TypeVar

T_co = TypeVar("T_co", covariant=True)


class Registry(Mapping[str, T_co]):
    """Read-only mapping of names to objects; only `registry[name]` imports the module of an object.

    >>> losses = Registry(mse="keras.losses:MeanSquaredError")
    >>> list(losses), "mse" in losses, losses["mse"].__name__
    (['mse'], True, 'MeanSquaredError')

    Args:
        paths: `"module:attribute"` by name.
    """

    def __init__(self, **paths: str) -> None:
        self.paths = paths

    def __getitem__(self, name: str) -> T_co:
        return resolve_name(self.paths[name])

    def __contains__(self, name: object) -> bool:
        return name in self.paths

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


_REGISTERED = re.compile(r"^@keras\.saving\.register_keras_serializable.*\nclass ([A-Z]\w*)", re.M)


def registered_classes(folder: Path) -> dict[str, list[str]]:
    """Return the classes that each module of a package registers with Keras.

    They are read from the sources, because importing the modules would import Keras.
    """
    files = sorted(folder.glob("*.py"))
    return {file.stem: _REGISTERED.findall(file.read_text(encoding="utf-8")) for file in files}
