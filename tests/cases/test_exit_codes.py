"""Exit codes of help, unknown flags, bad values and closed pipes."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from processes import within

from keras_reid.cli import evaluate

COMMANDS = ("train", "evaluate", "export", "cluster", "search", "track", "embed")


@pytest.mark.parametrize(
    "arguments",
    [
        ("train.py", "--help"),
        ("search.py", "--helpfull"),
        ("-m", "keras_reid.demo", "--help"),
        ("-m", "keras_reid.demo", "--helpfull"),
    ],
)
def test_help_exits_with_0(arguments: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0
    assert not ended.stderr
    assert ended.stdout.startswith("`keras-reid ")  # the usage of this command
    assert re.search(r"^  --(data_dir|gallery):", ended.stdout, re.MULTILINE)


def test_help_to_closed_pipe_exits_without_traceback() -> None:
    command = f"{sys.executable} -m keras_reid.demo --help | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode in (0, 1)  # 0 if the help was written before the pipe was closed
    assert not ended.stderr


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--color=red", "--no_such_flag", "-x"])
def test_unknown_flag_exits_with_2(command: str, flag: str, tmp_path) -> None:
    code, out, err = within(f"{command}.py", flag, cwd=tmp_path)
    assert code == 2
    assert not out
    name = flag.lstrip("-").partition("=")[0]
    assert re.fullmatch(rf"error: Unknown command line flag '{name}'.*--helpfull.*\n", err)


def test_word_instead_of_flag_exits_with_2(tmp_path) -> None:
    assert within("train.py", "synthetic", cwd=tmp_path)[0] == 2


@pytest.mark.parametrize(
    ("command", "flag"),
    [("train", "--epochs=many"), ("evaluate", "--rerank=magic"), ("search", "--top_k=0")],
)
def test_flag_bad_value_exits_with_1(command: str, flag: str, tmp_path) -> None:
    code, _, err = within(f"{command}.py", flag, cwd=tmp_path)
    assert code == 1
    assert re.fullmatch(rf"error: flag {flag}: [^\n]+\n", err)


def test_bad_value_with_control_characters_is_printed_escaped(tmp_path) -> None:
    _, _, err = within("train.py", "--epochs=\x1b[31m\n3", cwd=tmp_path)
    assert re.fullmatch(r"error: [^\n\x1b]+\n", err)


@pytest.mark.parametrize(
    ("old", "new"), [("--spread", "--camera_balanced"), ("--soft_margin", "--margin=soft")]
)
def test_renamed_flag_error_names_new_flag(old: str, new: str, tmp_path) -> None:
    code, _, err = within("train.py", old, cwd=tmp_path)
    assert code == 2
    assert f"error: the flag {old} is now called {new}." in err


def test_renamed_value_error_names_new_value(tmp_path) -> None:
    code, _, err = within("evaluate.py", "--distance=global", cwd=tmp_path)
    assert code == 1
    assert "error: --distance=global is now called --distance=euclidean." in err


def test_help_lists_flags_under_their_topics() -> None:
    lines = evaluate.run.help_text(full=True).splitlines()
    topics = {}
    for line in lines:
        if line.endswith(":") and not line.startswith(" "):
            topic = topics.setdefault(line[:-1], [])
        elif line.startswith("  --"):
            topic.append(line.split(":")[0].strip(" -").removeprefix("[no]"))
    assert [*topics] == ["flags", "data", "model", "evaluation", "output"]
    assert "protocol" in topics["evaluation"]
    assert {"dataset", "features"} < {*topics["data"]}
    assert topics["output"] == ["overwrite", "out", "report", "save_features"]
    assert sum(map(len, topics.values())) == len(evaluate.run.fields)
    text = " ".join("\n".join(lines).split())
    assert text.count("One of none, k_reciprocal, average_query_expansion") == 1
    assert text.count("One of pooled, trained") == 0  # the text of --local describes both
    assert (
        "Order of equal distances: index (of the gallery images), optimistic (true matches first: "
        "upper bound), or pessimistic (true matches last: lower bound). Default: index." in text
    )
