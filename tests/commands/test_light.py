"""What needs no network is done without TensorFlow, whose import takes seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_reid import gallery

ROOT = Path(__file__).parent.parent.parent
COMMANDS = ("train", "evaluate", "export", "cluster", "search", "track", "embed")
# A process in which nothing of TensorFlow or Keras can be imported.
WITHOUT = """
import runpy, sys
class Without:
    def find_spec(self, name, path, target=None):
        if name in ("tensorflow", "keras", "scipy", "sklearn"):
            raise SystemExit(f"{name} was imported")
sys.meta_path.insert(0, Without())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(command: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess:
    arguments = [sys.executable, "-c", WITHOUT, str(ROOT / f"{command}.py"), *flags]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command, tmp_path):
    ended = run(command, "--helpfull", cwd=tmp_path)
    assert f"{command}.py" in ended.stdout
    assert "was imported" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
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
        ("track", ("--video=x", "--out=x", "--threshold=nan"), "threshold is a number"),
    ],
)
def test_flags_are_refused(command, flags, message, tmp_path):
    ended = run(command, *flags, cwd=tmp_path)
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


def test_keras_does_not_import_what_no_command_uses():
    ended = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ended.stdout.splitlines() == ["imported []", "found sklearn"]


def test_a_gallery_is_counted(tmp_path):
    pytest.importorskip("faiss", reason="faiss, extra gallery, is not installed")
    with gallery.open(f"faiss:{tmp_path / 'people.db'}") as people:
        people.enrol(np.eye(4, dtype=np.float32), ["a", "b", "b", "c"], model_fingerprint="x")
    ended = run("search", "--gallery=faiss:people.db", "stats", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "rows         4" in ended.stdout
    ended = run("search", "--gallery=faiss:people.db", "remove", "b", cwd=tmp_path)
    assert "erased 2 images of b" in ended.stdout


def test_a_data_set_is_checked_before_anything_is_built(pedestrians, tmp_path):
    shutil.copytree(pedestrians, tmp_path / "drawn")
    shutil.rmtree(tmp_path / "drawn/bounding_box_train")
    ended = run("train", "--dataset=market1501", "--data_dir=drawn", cwd=tmp_path)
    assert "was imported" not in ended.stderr
    assert ended.returncode == 1
