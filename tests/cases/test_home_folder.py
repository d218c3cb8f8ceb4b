"""`~` is the home folder in every path of commands and of library functions."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import data, evaluation, gallery
from keras_reid.cli import cluster, embed, evaluate, export, search, track, train
from keras_reid.data import cache, synthetic
from keras_reid.data.attribute_tables import read_attributes
from keras_reid.demo import __main__ as demo
from keras_reid.io import (
    check_writable,
    locked,
    new_file,
    new_folder,
    read_table,
    read_text,
    replaced_file,
)
from keras_reid.names import expanded
from keras_reid.scale.listing import listed
from keras_reid.training import runs

COMMANDS = (cluster, embed, evaluate, export, search, track, train, demo)
# Values that options or commands check.
WORDS = ("protocol", "dataset", "detect_every", "retention")
TEXTS = [
    (module.run.options, one.name)
    for module in COMMANDS
    for one in module.run.fields
    if one.type in (str, str | None) and not one.metadata.get("choices") and one.name not in WORDS
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return a home folder with crops and features; the working folder is another one."""
    folder = tmp_path / "home"
    (folder / "crops/anna").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (16, 32), (99, number, 0)).save(folder / f"crops/anna/{number}.png")
    (folder / "list.csv").write_text("path,identity\n~/crops/anna/0.png,anna\n")
    x = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    identity, camera = np.arange(12) // 4, np.arange(12) % 2
    np.savez(folder / "f.npz", embedding=x, identity=identity, camera=camera)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    monkeypatch.chdir(tmp_path / "work")
    yield folder
    assert not os.listdir(tmp_path / "work")


@pytest.mark.parametrize(("options", "name"), TEXTS)
def test_options_home_is_expanded_in_every_text(options, name, home):
    names = {one.name for one in dataclasses.fields(options)}
    if name not in names:  # a value of a recipe
        made = options(settings={name: "~/x"}).settings[name]
    else:
        made = getattr(options(**{name: "~/x"}), name)
    assert made == str(home / "x")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("~", "{}"),
        ("faiss:~/people", "faiss:{}/people"),
        ("movenet:~/m.tflite", "movenet:{}/m.tflite"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
        ("x~", "x~"),
        ("http://host:1/~x", "http://host:1/~x"),
    ],
)
def test_options_gallery_with_scheme_is_expanded(given, expected, home):
    assert search.SearchOptions(gallery=given).gallery == expected.format(home)


def test_options_lists_and_words_are_expanded(home):
    options = evaluate.EvaluateOptions(features=["~/q.npz", "~/g.npz"])
    assert list(options.features) == [f"{home}/q.npz", f"{home}/g.npz"]
    words = search.SearchOptions(words=("enrol", "~/crops")).words
    assert words == ("enrol", f"{home}/crops")


def test_cluster_home_outputs_are_written_to_home(home):
    code, _, err = within("cluster.py", "--features=~/f.npz", "--csv=~/new/g.csv", cwd=os.getcwd())
    assert code == 0, err
    assert (home / "new/g.csv").is_file()


def test_evaluate_home_outputs_are_written_to_home(home):
    flags = ("--features=~/f.npz,~/f.npz", "--out=~/scores.json", "--protocol=no-camera")
    code, _, err = within("evaluate.py", *flags, cwd=os.getcwd())
    assert code == 0, err
    assert (home / "scores.json").is_file()


def test_train_home_data_is_read(home):
    flags = ("--check_only", "--dataset=folder", "--data_dir=~/crops")
    _, out, _ = within("train.py", *flags, cwd=os.getcwd())
    assert "train            2           1" in out


def test_search_home_gallery_is_read(home):
    with gallery.open("faiss:~/people") as people:
        people.enrol(np.eye(2, dtype=np.float32), ["a", "b"], model_fingerprint="0123456789abcdef")
    assert (home / "people.rows").is_file()
    code, out, err = within("search.py", "--gallery=faiss:~/people", "stats", cwd=os.getcwd())
    assert code == 0, err
    assert "identities" in out


def test_library_home_inputs_are_read(home):
    assert len(data.load("folder", "~/crops").train) == 2
    assert len(data.unlabeled("~/crops")) == 2
    assert data.load("csv", "~/list.csv").train.path.tolist() == [f"{home}/crops/anna/0.png"]
    for images in ("~/list.csv", "~/crops/anna/0*", ["~/crops/anna/0.png"]):
        assert [image.path for image in listed(images)] == [f"{home}/crops/anna/0.png"]
    assert len(list(listed("~/crops/**/*.png"))) == 2
    images = data.PersonImages(["~/crops/anna/0.png"], ["anna"], None)
    assert data.decodable(images.path).all()
    assert len(evaluation.load_features("~/f.npz").features["embedding"]) == 12
    assert read_text("~/list.csv").startswith("path")
    assert read_table("~/list.csv", ["path"])[0] == ["path", "identity"]
    (home / "attributes.csv").write_text("identity,hat\nanna,1\n")
    assert len(read_attributes("~/attributes.csv").identity) == 1


def test_library_home_outputs_are_written_to_home(home):
    with new_file("~/a.txt") as file:
        file.write_text("a")
    with replaced_file("~/a.txt") as file:
        file.write_text("b")
    with new_folder("~/folder") as folder:
        (folder / "x").touch()
    with locked("~/lock"):
        assert (home / "lock").exists()
    check_writable("~/new/file")
    assert (home / "a.txt").read_text() == "b"
    assert (home / "folder/x").exists()
    size = {"cameras": 2, "images_per_camera": 2, "size": (32, 16)}
    synthetic.generate("~/drawn", train_identities=1, test_identities=1, **size)
    assert (home / "drawn/query").is_dir()
    evaluation.save_features("~/g.npz", {"embedding": np.eye(2)})
    assert (home / "g.npz").is_file()
    images = data.unlabeled("~/crops")
    assert cache.cache_file("~/cache", images, (32, 16)).parent == home / "cache"
    assert runs.Run("~/runs/1").directory == home / "runs/1"


def test_expanded_name_with_tilde_stays(home):
    assert str(expanded("~nobody-of-this-name")) == "~nobody-of-this-name"
    assert str(expanded("a/~")) == "a/~"
