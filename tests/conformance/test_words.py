"""Names, docstrings and messages of the library: no flags, no ambiguous module names."""

import ast
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import keras_reid

PACKAGE = Path(keras_reid.__file__).parent
COMMANDS = {"cli", "demo", "__main__.py"}
LIBRARY = [file for file in PACKAGE.rglob("*.py") if not COMMANDS & {*file.parts}]
ROOMS = [name for name in keras_reid.__all__ if inspect.ismodule(getattr(keras_reid, name))]


@pytest.mark.parametrize("file", LIBRARY, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_library_strings_mention_no_command_flags(file: Path) -> None:
    """Library callers have no command line; commands add flags by `InputError.argument`."""
    texts = [
        node.value
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    flags = [text for text in texts if re.search(r"(?<![-\w])--[a-z]\w+", text)]
    assert flags == [] or all("for tensorboard --logdir" in text for text in flags)


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_do_not_shadow_modules(room: str) -> None:
    module = import_module(f"keras_reid.{room}")
    parts = {part.name for part in pkgutil.iter_modules(getattr(module, "__path__", []))}
    for name in parts & {*getattr(module, "__all__", [])}:
        assert getattr(module, name) is import_module(f"keras_reid.{room}.{name}"), name


def members(cls: type) -> dict[str, object]:
    """Return the public methods and properties that a class does not inherit."""
    found = {}
    for name, member in vars(cls).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", member)
        inherited = any(hasattr(base, name) for base in cls.__mro__[1:])
        if not name.startswith("_") and inspect.isfunction(function) and not inherited:
            found[name] = function
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_have_docstrings(room: str) -> None:
    module = import_module(f"keras_reid.{room}")
    for name in getattr(module, "__all__", []):
        thing = getattr(module, name)
        if inspect.isclass(thing):
            for method, function in members(thing).items():
                assert function.__doc__, f"{room}.{name}.{method}"
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert thing.__doc__, f"{room}.{name}"
            # A dataclass without a docstring lists its fields.
            assert not thing.__doc__.startswith(f"{name}("), f"{room}.{name}"
