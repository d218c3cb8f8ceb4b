"""Entries of the list of deliberate faults, and the generated README of the tests."""

import ast
from functools import cache

import breaks
import pytest
import tests_readme
from conftest import ROOT


@cache
def source(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def names_in(path: str) -> set[str]:
    tree = ast.walk(ast.parse(source(f"tests/{path}")))
    return {node.name for node in tree if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("fault", breaks.BREAKS, ids=lambda fault: fault.what)
def test_fault_anchor_and_named_test_exist(fault: breaks.Break) -> None:
    assert source(fault.file).count(fault.line) == 1
    assert fault.broken != fault.line
    path, _, name = fault.test.partition("::")
    assert name in names_in(path)


def test_readme_of_tests_is_generated() -> None:
    """`python tools/tests_readme.py` writes it."""
    text = tests_readme.README.read_text(encoding="utf-8")
    assert tests_readme.written(text) == text
