"""Examples in the docstrings run and print the documented output."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import keras_reid

PACKAGE = Path(keras_reid.__file__).parent
MODULES = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_module_docstring_examples_pass(name: str) -> None:
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert not found.failed


def test_main_packages_have_docstring_example() -> None:
    rooms = ("distances", "losses", "models", "evaluation", "reranking", "gallery", "data")
    for room in (*rooms, "tracking", "visualize"):
        assert any(name.startswith(f"keras_reid.{room}") for name in MODULES), room
