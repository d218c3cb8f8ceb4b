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


def test_every_command_of_the_readme_exists() -> None:
    for script in re.findall(r"python (\w+\.py)", README):
        assert (ROOT / script).is_file(), script
    commands = (cluster, evaluate, export, search, track, train)
    fields = (field for command in commands for field in command.run.fields)
    known = {field.name for field in fields} | {"help", "helpfull"}
    for flag in set(re.findall(r"--(\w+)", README)) - {"model_name", "model_base_path"}:
        assert flag.removeprefix("no") in known or flag in known, flag


@pytest.mark.slow
@pytest.mark.parametrize(("page", "blocks"), [("README.md", 1), ("docs/plain-fit.md", 3)])
def test_the_python_of_a_page_runs(page: str, blocks: int, tmp_path: Path) -> None:
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
        assert "loss" in result.stdout
