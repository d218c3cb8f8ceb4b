"""What the README promises, as far as a test can hold it to that."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from keras_reid.cli import cluster, evaluate, export, search, track, train

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_test_command_is_what_ci_runs() -> None:
    commands = re.findall(r"^    (pip install.*&& pytest)$", README, re.MULTILINE)
    assert commands == ['pip install -e ".[test,tracking]" && pytest']


@pytest.mark.parametrize("page", ["README.md", "docs/own-data.md", "docs/models.md"])
def test_every_command_of_a_page_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for script in re.findall(r"python ([\w/]+\.py)", text):
        assert (ROOT / script).is_file(), script
    commands = (cluster, evaluate, export, search, track, train)
    fields = (field for command in commands for field in command.run.fields)
    known = {field.name for field in fields} | {"help", "helpfull"}
    lines = re.findall(r"^.*python (?:\w+/)\w+\.py(?:.*\\\n)*.*$", text, re.MULTILINE)
    for line in lines:  # of tools and benchmarks, which have flags of their own
        text = text.replace(line, "")
    for flag in set(re.findall(r"--(\w+)", text)) - {"model_name", "model_base_path"}:
        assert flag.removeprefix("no") in known or flag in known, flag


@pytest.mark.slow
def test_the_first_minute_of_a_stranger(tmp_path: Path) -> None:
    """The lines of the README for one's own photos, on drawn ones."""
    section = README.split("## On your own photos and videos")[1].split("\n## ")[0]
    lines = re.findall(r"^    python ([\w/]+\.py)([^#\n]*)", section, re.MULTILINE)
    assert [script for script, _ in lines] == [
        *("search.py", "search.py", "cluster.py", "track.py", "examples/photos.py")
    ]
    for script, flags in [lines[-1], *lines[:3]]:
        command = [sys.executable, str(ROOT / script), *flags.split()]
        ended = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert ended.returncode == 0, ended.stderr
        if "query" in flags:
            assert re.search(r"^somebody\.jpg: (person-\d+|unknown)$", ended.stdout, re.MULTILINE)
    assert (tmp_path / "sheet.png").exists()
    assert any((tmp_path / "persons").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "blocks", "word"),
    [
        ("README.md", 1, "loss"),
        ("docs/plain-fit.md", 3, "loss"),
        ("docs/models.md", 1, "1:N at FAR 0.01"),
    ],
)
def test_the_python_of_a_page_runs(page: str, blocks: int, word: str, tmp_path: Path) -> None:
    """Each block in a process of its own, one after the other in one folder."""
    text = (ROOT / page).read_text(encoding="utf-8")
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(codes) == blocks
    for code in codes:
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert word in result.stdout
