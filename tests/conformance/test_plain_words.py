"""Findings, exemptions and exit codes of `tools/plain_words.py`, which checks all text."""

from pathlib import Path

import plain_words
import pytest


@pytest.mark.parametrize(
    ("text", "docstring", "rules"),
    [
        ("Return the nearest rows.", True, []),
        ("How a file is read.", True, ["opening"]),
        ("the box whose score is largest", False, ["riddle"]),
        ("nobody waits", False, ["person"]),
        ("it is written anew", False, ["archaic"]),
        ("the file is no image", False, ["negation"]),
        ("margin must be positive: received {}", False, ["form"]),
        ("`x is None` and `whose` are code", False, []),
        (" ".join(["word"] * 35), False, ["long"]),
        ("Return x.\n\n    >>> nobody(\n    ... 1)\n    whose\n", True, []),
        ("    >>> anew\n    anew\n\n    Written anew.\n", True, ["archaic"]),
    ],
)
def test_findings_text_names_rules(text: str, docstring: bool, rules: list[str]) -> None:
    assert [rule for rule, _ in plain_words.findings(text, docstring)] == rules


def test_in_file_exempt_line_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        '"""Module."""\n\nA = f"{0} is written anew"\nB = "nobody is here"  # plain-words: ok\n'
    )
    assert [(line, rule) for line, rule, _ in plain_words.in_file(file)] == [(3, "archaic")]


def test_in_file_markdown_code_is_skipped(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Plain text.\n\n    nobody\n\n```\nnobody\n```\n\nText of nobody.\n")
    assert [(line, rule) for line, rule, _ in plain_words.in_file(page)] == [(9, "person")]


def test_in_file_heading_as_question_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# How it works\nThe model learns.\n")
    assert [(line, rule) for line, rule, _ in plain_words.in_file(page)] == [(1, "opening")]


@pytest.mark.parametrize(("most", "code"), [(400, 1), (600, 0)])
def test_main_too_many_findings_exits_with_1(
    most: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "module.py").write_text('"""Module."""\n# nobody\n')
    assert plain_words.main([str(tmp_path), f"--max_per_thousand={most}"]) == code
    assert capsys.readouterr().out == (f"{tmp_path}: 500.0 findings per 1,000 lines: 1 person\n")
