"""Commands, flags, Python blocks and notebooks of the README and the docs."""

import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import absl.flags
import nbclient
import nbformat
import notebooks
import pytest
from conftest import ROOT

from keras_reid.__main__ import COMMANDS
from keras_reid.cli import options
from keras_reid.training import recipes

PAGES = ["README.md", *(f"docs/{file.name}" for file in sorted((ROOT / "docs").glob("*.md")))]
# A part of the output of the blocks of each page.
PYTHON = {
    "README.md": "loss",
    "docs/alignment.md": "the same person, shifted: aligned 4.77",
    "docs/distillation.md": "(2, 128)",
    "docs/enhance.md": "1: [82.0, 20.0, 40.0, 100.0]",
    "docs/gallery.md": "TAR at FAR",
    "docs/losses.md": "0.275",
    "docs/mathematics.md": "0.275",
    "docs/migrating.md": "1.911",
    "docs/models.md": "(200, 1280) (1, 1280)",
    "docs/mutual.md": "logits_logit_distillation",
    "docs/plain-fit.md": "loss",
    "docs/reranking.md": "mAP 88.5%",
    "docs/scaling.md": "(420, 1280)",
    "docs/serving.md": "export/person/1 (4, 1280)",
    "docs/tutorial.md": "at a FAR of 1 %",
}
OTHERS = {"enable_batching", "grpc", "set", "table", "row", "seeds"}  # of servers and tools
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_test_command_matches_ci() -> None:
    commands = re.findall(r"^    (pip install.*&& pytest)$", README, re.MULTILINE)
    assert commands == ['pip install -e ".[test,tracking]" && pytest']


def commands_of(page: str) -> list[list[str]]:
    """The words of each command of a page, continued lines joined and remarks left out."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^ {4}(?:keras-reid|python) (\w+(?:\.py)?(?: .*)?)$", text, re.MULTILINE)
    words = (shlex.split(line, comments=True) for line in lines)
    return [[command.removesuffix(".py"), *rest] for command, *rest in words]


@pytest.mark.parametrize("page", PAGES)
def test_page_commands_parse_with_valid_options(page: str) -> None:
    """All flags are flags of that command, with valid values."""
    for name, *words in commands_of(page):
        command = pkgutil.resolve_name(COMMANDS[name][0])
        values = absl.flags.FlagValues()
        options.define(command.fields, values)
        left = values([name, *words])[1:]
        given = {field.name: values[field.name].value for field in command.fields}
        if command.settings:
            said = {field.name: given.pop(field.name) for field in command.settings}
            recipe = recipes.get(given["recipe"] or "bot")
            recipe.replace(**{name: value for name, value in said.items() if value is not None})
        if command.words is not None:
            given["words"] = tuple(left)
        else:
            assert not left
        command.options(**given)


@pytest.mark.parametrize("page", PAGES)
def test_page_flags_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = (pkgutil.resolve_name(path) for path, _ in COMMANDS.values())
    fields = (field for command in commands for field in command.fields)
    known = {field.name for field in fields} | {"help", "helpfull"} | OTHERS
    for line in re.findall(r"^.*(?:python (?:\w+/)\w+\.py).*$|^.*docker.*$", text, re.MULTILINE):
        text = text.replace(line, "")  # of tools and benchmarks, which have flags of their own
    for flag in {flag.replace("-", "_") for flag in re.findall(r"`--([\w-]+)", text)}:
        assert flag.removeprefix("no") in known or flag in known, flag


@pytest.mark.slow
def test_readme_photo_commands_run_on_synthetic_images(tmp_path: Path) -> None:
    section = README.split("## Search in your own photos")[1].split("\n## ")[0]
    program = [sys.executable, "-m", "keras_reid"]
    lines = [
        ["keras-reid", "cluster", "--images=crops", "--out=persons", "--contact_sheet=sheet.png"]
    ]
    found = re.findall(r"^    ((?:python|keras-reid) [^#\n]*)", section, re.MULTILINE)
    lines = [*(line.split() for line in found if "demo" not in line), *lines]
    assert [line[1] for line in lines[:-1]] == ["examples/photos.py", "search", "search"]
    for name, *words in lines:
        script = [sys.executable, str(ROOT / words[0]), *words[1:]]
        command = [*program, *words] if name == "keras-reid" else script
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == 0, ended.stderr
        if "query" in words:
            assert re.search(
                r"^somebody\.jpg: (possible )?match: person-01 \(", ended.stdout, re.MULTILINE
            )
    assert (tmp_path / "sheet.png").exists()
    assert any((tmp_path / "persons").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if Path(page).stem not in notebooks.PAGES])
def test_page_python_blocks_run_and_print_expected_text(page: str, tmp_path: Path) -> None:
    """All blocks, one after the other, as in a notebook; pages that have one are run as such."""
    text = (ROOT / page).read_text(encoding="utf-8")
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert codes or page not in PYTHON
    if not codes:
        pytest.skip("this page has commands alone, or neither")
    result = subprocess.run(
        [sys.executable, "-c", "\n".join(codes)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert PYTHON.get(page, "") in result.stdout


@pytest.mark.parametrize("page", notebooks.PAGES)
def test_notebook_matches_its_page(page: str) -> None:
    held = nbformat.read(ROOT / f"examples/{page}.ipynb", 4)
    assert held == notebooks.notebook(page), "run python tools/notebooks.py"


@pytest.mark.slow
@pytest.mark.parametrize("page", notebooks.PAGES)
def test_notebook_runs_and_prints_expected_text(page: str, tmp_path: Path) -> None:
    held = nbformat.read(ROOT / f"examples/{page}.ipynb", 4)
    ran = nbclient.NotebookClient(
        held, timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    assert PYTHON[f"docs/{page}.md"] in printed
    if page == "tutorial":
        verdicts = r"(\d+) match, (\d+) possible match, (\d+) no match\n"
        known = re.search(r"enrolled, nearest person right: " + verdicts, printed)
        other = re.search(r"not enrolled: " + verdicts, printed)
        assert known
        assert other
        assert sum(map(int, known.groups())) > int(known[3])
        assert sum(map(int, other.groups())) == 20
