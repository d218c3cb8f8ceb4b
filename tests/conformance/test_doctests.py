"""Examples in the docstrings run and print the documented output."""

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

import keras_reid

PACKAGE = Path(keras_reid.__file__).parent
MODULES = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in file.read_text(encoding="utf-8")
]
# Public names of these packages have an example in their docstrings, or in a guide.
PACKAGES = ("losses", "mining", "distances", "layers", "models", "evaluation", "reranking")
# Pages with an example of a name in their Python blocks, which test_readme.py runs; sorted.
GUIDES = {
    "models.ReidModel": "docs/plain-fit.md",
    "models.pretrained": "docs/scaling.md",
}


@pytest.mark.parametrize("name", MODULES)
def test_module_docstring_examples_pass(name: str) -> None:
    results = doctest.testmod(import_module(name))
    assert results.attempted
    assert not results.failed


@pytest.fixture(scope="module")
def executed() -> set[str]:
    """Docstrings with examples that `test_module_docstring_examples_pass` runs."""
    tests = [test for name in MODULES for test in doctest.DocTestFinder().find(import_module(name))]
    return {test.docstring for test in tests if test.examples}


def examples_of(module: ModuleType) -> dict[str, str | None]:
    """Docstrings of the public classes and functions of a package, by name.

    An alias or a wrapper has the docstring of the original.
    """
    values = {name: getattr(module, name) for name in module.__all__}
    return {
        name: value.__doc__
        for name, value in values.items()
        if inspect.isclass(value) or inspect.isroutine(value)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_have_executed_example(package: str, executed: set[str]) -> None:
    docstrings = examples_of(import_module(f"keras_reid.{package}"))
    assert docstrings
    missing = {f"{package}.{name}" for name, text in docstrings.items() if text not in executed}
    assert sorted(missing) == [name for name in GUIDES if name.startswith(f"{package}.")]


@pytest.mark.parametrize("name", GUIDES)
def test_guide_of_public_name_has_example(name: str) -> None:
    text = (ROOT / GUIDES[name]).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert any(re.search(rf"\b{name}\b", block) for block in blocks)


def test_main_packages_have_docstring_example() -> None:
    for package in ("gallery", "data", "training", "tracking", "visualize"):
        assert any(name.startswith(f"keras_reid.{package}") for name in MODULES), package
