"""Commands that run without importing TensorFlow: help, flag errors and gallery management."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_reid import gallery

ROOT = Path(__file__).parent.parent.parent
COMMANDS = ("train", "evaluate", "export", "cluster", "search", "track", "embed")
# A process in which TensorFlow and Keras cannot be imported, and which forks for each command.
WITHOUT = """
import json, os, runpy, sys
class Without:
    def find_spec(self, name, path, target=None):
        if name in ("tensorflow", "keras", "scipy", "sklearn"):
            raise SystemExit(f"{name} was imported")
sys.meta_path.insert(0, Without())
from keras_reid.cli import cluster, embed, evaluate, export, search, track, train
for number, arguments in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv = arguments
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    open(f"{number}.code", "w").write(str(code))
"""


def run_all(commands: list[tuple[str, ...]], cwd: Path) -> list[subprocess.CompletedProcess]:
    """Run commands one after another, each in a fork of one process."""
    arguments = [[str(ROOT / f"{command}.py"), *flags] for command, *flags in commands]
    called = [sys.executable, "-c", WITHOUT, json.dumps(arguments)]
    subprocess.run(called, cwd=cwd, check=True, stdin=subprocess.DEVNULL)
    return [
        subprocess.CompletedProcess(
            given,
            int((cwd / f"{number}.code").read_text()),
            (cwd / f"{number}.out").read_text(),
            (cwd / f"{number}.err").read_text(),
        )
        for number, given in enumerate(arguments)
    ]


def run(command: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess:
    return run_all([(command, *flags)], cwd)[0]


def test_helpfull_prints_without_tensorflow(tmp_path):
    for command, ended in zip(
        COMMANDS, run_all([(command, "--helpfull") for command in COMMANDS], tmp_path), strict=True
    ):
        assert ended.returncode == 0
        assert f"{command}.py" in ended.stdout
        assert "was imported" not in ended.stderr


REFUSED = [
    ("train", ("--epochs=0",), "epochs is at least 1"),
    ("train", ("--metric_loss=magic",), "metric_loss is one of circle"),
    ("train", ("--recipe=magic",), "recipe is one of"),
    ("train", ("--distillation=logits",), "distillation is a list of logits"),
    ("train", ("--softmax=magic",), "softmax is one of plain, arcface"),
    ("train", ("--mixstyle=2",), "mixstyle is in [0, 1]"),
    ("train", ("--dataset=market1501", "--data_dir=no"), "no"),
    ("evaluate", ("--rerank=magic",), "should be one of <none|k_reciprocal"),
    ("evaluate", ("--rerank_options=k1",), "NAME=NUMBER"),
    ("evaluate", (), "give --dataset and --data_dir"),
    ("export", ("--format=magic",), "should be one of <saved_model|onnx"),
    ("export", ("--name=../x",), "a served model is named by letters"),
    ("export", ("--ranker_gallery=g.npz", "--noranker"), "is held by a ranker"),
    ("cluster", (), "either --images or --dataset"),
    ("cluster", ("--images=no",), "no is no folder"),
    ("search", ("stats",), "give --gallery"),
    ("embed", (), "give --images and --out"),
    ("search", ("--gallery=faiss:no.db", "stats"), "there is no gallery"),
    ("track", ("--out=x",), "give --video"),
    ("track", ("--video=x", "--out=x", "--min_confidence=nan"), "min_confidence is a number"),
]


def test_invalid_flags_exit_without_tensorflow(tmp_path):
    done = run_all([(command, *flags) for command, flags, _ in REFUSED], tmp_path)
    for (_, _, message), ended in zip(REFUSED, done, strict=True):
        assert "was imported" not in ended.stderr
        assert message in ended.stderr
        assert ended.returncode == 1


ALONE = """
import sys
from keras_reid.cli.imports import UNUSED, keras_alone
keras_alone()
import keras
print("imported", sorted(UNUSED & set(sys.modules)))
import sklearn
print("found", sklearn.__name__)
"""


@pytest.mark.slow
def test_keras_alone_skips_unused_imports():
    ended = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ended.stdout.splitlines() == ["imported []", "found sklearn"]


def test_search_stats_list_and_remove_run_without_tensorflow(tmp_path):
    pytest.importorskip("faiss", reason="faiss, extra gallery, is not installed")
    with gallery.open(f"faiss:{tmp_path / 'people.db'}") as people:
        people.enrol(np.eye(4, dtype=np.float32), ["a", "b", "b", "c"], model_fingerprint="x")
    words = (("stats",), ("list",), ("remove", "b"))
    commands = [("search", "--gallery=faiss:people.db", *some) for some in words]
    stats, listed, removed = run_all(commands, tmp_path)
    assert stats.returncode == listed.returncode == removed.returncode == 0, listed.stderr
    assert "rows         4" in stats.stdout
    assert listed.stdout == "1  a\n2  b\n1  c\n"
    assert "erased 2 images of b" in removed.stdout


def test_train_incomplete_dataset_exits_without_tensorflow(pedestrians, tmp_path):
    shutil.copytree(pedestrians, tmp_path / "drawn")
    shutil.rmtree(tmp_path / "drawn/bounding_box_train")
    ended = run("train", "--dataset=market1501", "--data_dir=drawn", cwd=tmp_path)
    assert "was imported" not in ended.stderr
    assert ended.returncode == 1
