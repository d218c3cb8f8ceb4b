"""The program `keras-reid`: list of commands, dispatch, exit codes and shell completion."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from keras_reid import __main__ as program
from keras_reid.cli import completion

# Prints the packages that the program has imported at its end.
IMPORTED = """
import sys
from keras_reid.__main__ import main
try:
    main()
finally:
    print(sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
# Prints the candidates of the words; the last one is completed. Bash separates words at "=".
BASH = """
eval "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_keras_reid
printf "%s\\n" "${COMPREPLY[@]}"
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    called = [sys.executable, "-c", IMPORTED, *arguments]
    return subprocess.run(called, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_program_without_command_lists_commands(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["keras-reid", *arguments])
    program.main()
    listed = re.findall(r"^  ([a-z]+) +[A-Z].+\.$", capsys.readouterr().out, re.MULTILINE)
    assert listed == [*program.COMMANDS, "completion"]


def test_program_list_is_printed_without_heavy_imports() -> None:
    ended = run()
    assert ended.returncode == 0
    assert "commands:" in ended.stdout
    for package in ("keras", "tensorflow", "scipy", "sklearn", "PIL"):
        assert repr(package) not in ended.stderr


def test_program_unknown_command_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["keras-reid", "trian"])
    with pytest.raises(SystemExit, match="2"):
        program.main()
    err = capsys.readouterr().err
    known = ", ".join([*program.COMMANDS, "completion"])
    assert err == f"error: The command must be one of {known}, got 'trian'.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("search", "query", "a.jpg"), 1, "error: --gallery is required"),
        (("search", "query", "a.jpg", "--gallery=no.db"), 1, "error: Gallery no.db not found"),
        (("train", "--no_such_flag"), 2, "error: Unknown command line flag 'no_such_flag'"),
        (("cluster", "--help"), 0, "`keras-reid cluster "),
    ],
)
def test_program_runs_command_with_its_flags(
    arguments: tuple[str, ...], code: int, text: str
) -> None:
    called = [sys.executable, "-m", "keras_reid", *arguments]
    ended = subprocess.run(called, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (ended.stderr if code else ended.stdout).startswith(text)
    assert ended.returncode == code


@pytest.fixture(scope="module")
def scripts() -> dict[str, str]:
    return {shell: write(program.COMMANDS) for shell, write in completion.SCRIPTS.items()}


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (("e",), {"evaluate", "export", "embed"}),
        (("train", "--check"), {"--check_only"}),
        (("train", "--nocheck"), {"--nocheck_only"}),
        (("export", "--form"), {"--format="}),
        (("export", "--format", "=", "o"), {"onnx", "openvino"}),
        (("export", "--format", "="), {"saved_model", "onnx", "litert", "openvino"}),
        (("search", "q"), {"query"}),
        (("search", "--top"), {"--top_k="}),
        (("search", "query", "--top"), {"--top_k="}),
        (("search", "query", "a"), set()),  # file names are completed by bash
        (("cluster", "--images", "=", "c"), set()),
    ],
)
def test_bash_completion_offers_commands_flags_and_values(
    words: tuple[str, ...], candidates: set[str], scripts: dict[str, str]
) -> None:
    called = ["bash", "-c", BASH, "bash", scripts["bash"], "keras-reid", *words]
    ended = subprocess.run(called, capture_output=True, text=True, check=True)
    assert {*ended.stdout.split()} == candidates
    assert not ended.stderr


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_completion_is_valid(scripts: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "_keras-reid").write_text(scripts["zsh"])
    subprocess.run(["zsh", "-n", tmp_path / "_keras-reid"], check=True)


def test_completion_scripts_contain_all_flags(scripts: dict[str, str]) -> None:
    for _, command in completion._loaded(program.COMMANDS):
        for one in command.fields:
            assert f"--{one.name}" in scripts["bash"]
            assert f"--{one.name}" in scripts["zsh"]


@pytest.mark.parametrize(
    ("words", "text"),
    [(["bash"], "complete -o default"), (["--help"], "completion bash|zsh")],
)
def test_completion_prints_script_or_help(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    completion.main(words, program.COMMANDS)
    assert text in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["fish"], ["bash", "zsh"]])
def test_completion_other_shell_exits_with_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        completion.main(words, program.COMMANDS)
    assert capsys.readouterr().err.startswith("error: completion takes bash or zsh, got ")
