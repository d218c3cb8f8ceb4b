"""Commands that run without importing TensorFlow: help, flag errors and gallery management."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from keras_reid import gallery
from keras_reid.cli import startup

ROOT = Path(__file__).parent.parent.parent
COMMANDS = ("train", "evaluate", "export", "cluster", "search", "track", "embed", "crop", "demo")
HEAVY = {"keras", "tensorflow", "scipy", "sklearn"}
# Forks for each command and writes its exit code and all imported packages to a file. The import
# of Keras or TensorFlow raises.
FORKS = """
import json, os, runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tensorflow"):
            raise AssertionError(f"imports {name}")
sys.meta_path.insert(0, Blocked())
from keras_reid.cli import cluster, crop, embed, evaluate, export, search, track, train
for number, arguments in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        for descriptor, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
        sys.argv = arguments
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            packages = {name.partition(".")[0] for name in sys.modules}
            open(f"{number}.json", "w").write(json.dumps([end.code or 0, *packages]))
        os._exit(0)
    os.waitpid(child, 0)
"""


class Ended(NamedTuple):
    """A command that has ended, and the packages that it imported."""

    code: int
    out: str
    err: str
    packages: set[str]


def run_all(commands: list[tuple[str, ...]], cwd: Path) -> list[Ended]:
    """Run commands one after another, each in a fork of one process."""
    programs = {command: ROOT / f"{command}.py" for command in COMMANDS}
    programs["demo"] = ROOT / "keras_reid/demo/__main__.py"
    arguments = json.dumps([[str(programs[name]), *flags] for name, *flags in commands])
    called = [sys.executable, "-c", FORKS, arguments]
    subprocess.run(called, cwd=cwd, check=True, stdin=subprocess.DEVNULL)
    ended = []
    for number in range(len(commands)):
        code, *packages = json.loads((cwd / f"{number}.json").read_text())
        out, err = ((cwd / f"{number}.{name}").read_text() for name in ("out", "err"))
        ended.append(Ended(code, out, err, set(packages)))
    return ended


def test_helpfull_prints_without_tensorflow(tmp_path):
    ended = run_all([(command, "--helpfull") for command in COMMANDS], tmp_path)
    for command, one in zip(COMMANDS, ended, strict=True):
        assert one.code == 0
        assert command in one.out.splitlines()[0]
        assert "flags:" in one.out
        assert not HEAVY & one.packages


def test_registries_list_names_without_keras():
    code = """
import sys
from keras_reid import layers, losses, models, reranking, scale, serving, training
print(*losses.METRIC_LOSSES, *losses.DISTILLATION_LOSSES, *losses.MARGINS, *layers.POOLINGS)
print(*models.BACKBONES, *reranking.RERANKERS, *scale.ENGINES, *serving.FORMATS, *training.RECIPES)
print("triplet" in losses.METRIC_LOSSES, "magic" in losses.METRIC_LOSSES)
print({"keras", "tensorflow"} & set(sys.modules))
"""
    called = [sys.executable, "-c", code]
    ended = subprocess.run(called, capture_output=True, text=True, check=True)
    *_, found, imported = ended.stdout.splitlines()
    assert (found, imported) == ("True False", "set()")


REFUSED = [
    ("train", ("--epochs=0",), "epochs must be at least 1"),
    ("train", ("--metric_loss=magic",), "metric_loss must be one of circle"),
    ("train", ("--recipe=magic",), "recipe must be one of"),
    ("train", ("--distillation=logits",), "distillation must be a list of logits"),
    ("train", ("--softmax=magic",), "softmax must be one of plain, arcface"),
    ("train", ("--mixstyle=2",), "mixstyle must be in [0, 1]"),
    ("train", ("--dataset=market1501", "--data_dir=no"), "no"),
    ("evaluate", ("--rerank=magic",), "should be one of <none|k_reciprocal"),
    ("evaluate", ("--rerank_options=k1",), "NAME=NUMBER"),
    ("evaluate", (), "--dataset and --data_dir are required"),
    ("export", ("--format=magic",), "should be one of <saved_model|onnx"),
    ("export", ("--name=../x",), "--name must be letters, digits"),
    ("export", ("--ranker_gallery=g.npz", "--noranker"), "--ranker_gallery needs --ranker"),
    ("cluster", (), "One of --images, --dataset and --features"),
    ("cluster", ("--images=no",), "`no` must contain"),
    ("search", ("stats",), "--gallery is required"),
    ("embed", (), "--images and --out are required"),
    ("crop", (), "A folder or files, and --out, are required"),
    ("crop", ("photos", "--detect=magic"), "should be one of <auto|always|never>"),
    ("search", ("--gallery=faiss:no.db", "stats"), "not found. Enrol"),
    ("track", ("--out=x",), "--source and one of --out"),
    ("demo", (), "--gallery is required"),
    *((command, ("--magic=1",), "Unknown command line flag 'magic'") for command in COMMANDS),
    (
        "track",
        ("--source=x", "--out=x", "--min_confidence=nan"),
        "--min_confidence must be a number",
    ),
]


def test_invalid_flags_exit_without_tensorflow(tmp_path):
    done = run_all([(command, *flags) for command, flags, _ in REFUSED], tmp_path)
    for (_, _, message), ended in zip(REFUSED, done, strict=True):
        assert message in ended.err
        assert ended.code == (2 if "Unknown" in message else 1)
        assert not HEAVY & ended.packages


IMPORTS = """
import sys
from keras_reid.cli.startup import OPTIONAL, import_keras
import_keras()
print("keras" in sys.modules, OPTIONAL & sys.modules.keys())
import sklearn
"""


@pytest.mark.slow
def test_import_keras_skips_optional_packages():
    called = [sys.executable, "-c", IMPORTS]
    ended = subprocess.run(called, capture_output=True, text=True, check=True)
    assert ended.stdout == "True set()\n"


def test_startup_lines_are_hidden_and_errors_printed(capfd):
    with startup._without_startup_lines():
        for line in (
            b"WARNING: All log messages before absl::InitializeLog() is called are written to x\n",
            b"I0000 00:00:1.2    4914 port.cc:153] oneDNN custom operations are on.\n",
            b"E0000 00:00:1.2    4914 cuda.cc:52] failed call to cuInit: UNKNOWN ERROR (303)\n",
            b"E0000 00:00:1.2    4914 cuda.cc:52] failed call to cuInit: NO DEVICE (100)\n",
        ):
            os.write(2, line)
    assert capfd.readouterr().err.split("cuInit: ")[1:] == ["NO DEVICE (100)\n"]


def test_search_stats_list_and_remove_run_without_tensorflow(tmp_path):
    pytest.importorskip("faiss", reason="faiss, extra gallery, is not installed")
    with gallery.open(f"faiss:{tmp_path / 'people.db'}") as people:
        people.enrol(np.eye(4, dtype=np.float32), ["a", "b", "b", "c"], model_fingerprint="x")
    words = (("stats",), ("list",), ("remove", "b"))
    ended = run_all([("search", "--gallery=faiss:people.db", *some) for some in words], tmp_path)
    assert not any(one.code or HEAVY & one.packages for one in ended)
    stats, listed, removed = (one.out for one in ended)
    assert "rows         4" in stats
    assert listed == "1  a\n2  b\n1  c\n"
    assert "erased 2 images of b" in removed


def test_train_incomplete_dataset_exits_without_tensorflow(pedestrians, tmp_path):
    shutil.copytree(pedestrians, tmp_path / "drawn")
    shutil.rmtree(tmp_path / "drawn/bounding_box_train")
    (ended,) = run_all([("train", "--dataset=market1501", "--data_dir=drawn")], tmp_path)
    assert ended.code == 1
    assert not HEAVY & ended.packages


def test_commands_with_pretrained_model_run_without_tensorflow(pedestrians, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime, extra gallery, is not installed")
    for image in sorted((pedestrians / "query").glob("*.jpg"))[:6]:
        folder = tmp_path / "people" / image.name[:4]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
    same, people = str(folder / image.name), "--gallery=file:people.db"
    enrolled, found, compared, embedded = run_all(
        [
            ("search", people, "enrol", "people"),
            ("search", people, "query", same),
            ("search", "verify", same, same),
            ("embed", "--images=people", "--out=embeddings"),
        ],
        tmp_path,
    )
    for one in (enrolled, found, compared, embedded):
        assert (one.code, one.err) == (0, "")
        assert not {"keras", "tensorflow"} & one.packages
    assert "enrolled 6 images" in enrolled.out
    assert f"match: {image.name[:4]} (" in found.out
    assert compared.out.startswith("0.0000  match (")
    assert "6 images in 1 file" in embedded.out
