"""Commands with a pair verifier: training, verification, and the refusals of all others."""

import json
import shutil
from pathlib import Path

import pytest
from processes import said

from keras_reid import data

pytestmark = pytest.mark.slow

TINY = (
    "--recipe=pair_verifier",
    "--backbone=tiny",
    "--weights=none",
    "--height=32",
    "--width=16",
    "--num_identities_per_batch=4",
    "--epochs=3",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a pair verifier in `run`, and images of two persons."""
    root = tmp_path_factory.mktemp("pairs")
    data.synthetic.generate(root / "drawn", 12, 12, size=(64, 32))
    drawn = ("--dataset=market1501", "--data_dir=drawn")
    out = said("train.py", *drawn, *TINY, "--run=run", cwd=root)
    assert "after training:  AUC " in out
    assert "next: keras-reid search verify FIRST.jpg SECOND.jpg --model=run" in out
    gallery = data.load("market1501", str(root / "drawn")).gallery
    paths = gallery.path[~gallery.distractor]
    for name, image in (("one", paths[0]), ("other", paths[-1])):
        shutil.copy(image, root / f"{name}.jpg")
        (root / "people" / name).mkdir(parents=True)
        shutil.copy(image, root / "people" / name)
    return root


def test_verify_pair_verifier_prints_verdict_with_probability(folder: Path) -> None:
    out = said("search.py", "--model=run", "verify", "one.jpg", "one.jpg", cwd=folder)
    assert out.startswith("0.0000  ")
    assert "match (" in out
    flags = ("--format=json", "--model=run", "verify", "one.jpg", "other.jpg")
    (pair,) = json.loads(said("search.py", *flags, cwd=folder))["pairs"]
    assert pair["distance"] > 0
    assert 0 < pair["probability"] < 1
    metrics = json.loads((folder / "run/metrics.json").read_text())
    assert metrics["calibration"]["1"]["source"] == "pairs of validation persons of market1501"
    assert metrics["after"]["auc"] > 0.5


def test_verify_pair_verifier_file_prints_missing_calibration(folder: Path) -> None:
    model = "--model=run/model.keras"
    out = said("search.py", model, "verify", "one.jpg", "other.jpg", cwd=folder)
    assert "The model has no calibration. Train it with" in out


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate.py", "--model=run"),
        ("export.py", "--model=run", "--dataset=market1501", "--data_dir=drawn"),
        ("embed.py", "--model=run", "--images=drawn/query", "--out=shards"),
        ("cluster.py", "--model=run", "--images=drawn/query", "--csv=groups.csv"),
        ("search.py", "--model=run", "--gallery=faiss:people.db", "enrol", "people"),
    ],
    ids=lambda command: command[0],
)
def test_commands_other_than_verify_pair_verifier_raises(
    folder: Path, command: tuple[str, ...]
) -> None:
    err = said(*command, cwd=folder, code=1)
    assert "must be an embedder, got the pair verifier" in err
    assert "Only keras-reid search verify accepts it." in err
