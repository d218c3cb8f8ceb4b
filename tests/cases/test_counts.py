"""Counts are printed with the right plural, and one person is too few to train on."""

import numpy as np
import pytest
from PIL import Image
from processes import TINY, within

from keras_reid import data, gallery
from keras_reid.cli.enrol import Enrolment
from keras_reid.cli.search import SearchOptions
from keras_reid.errors import InputError, counted
from keras_reid.training import Plan, recipes


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "image", "1 image"),
        (2, "image", "2 images"),
        (0, "image", "0 images"),
        (1, "identity", "1 identity"),
        (2000, "identity", "2,000 identities"),
        (1, "query", "1 query"),
        (3, "query", "3 queries"),
    ],
)
def test_counted_number_returns_singular_or_plural(count, noun, text):
    assert counted(count, noun) == text


@pytest.mark.parametrize(
    ("identity", "camera", "text"),
    [
        (["a"], ["1"], "1 image, 1 identity, 1 camera"),
        (["a", "a"], ["1", "2"], "2 images, 1 identity, 2 cameras"),
        (["a", "b"], None, "2 images, 2 identities, no cameras"),
    ],
)
def test_person_images_repr_counts_with_plural(identity, camera, text):
    paths = [f"{i}.jpg" for i in range(len(identity))]
    assert repr(data.PersonImages(paths, identity, camera)) == f"PersonImages({text})"


@pytest.mark.parametrize(
    ("names", "text"),
    [(["a"], "1 image of 1 identity"), (["a", "a"], "2 images of 1 identity")],
)
def test_enrolment_counts_print_singular_or_plural(names, text, capsys):
    with gallery.open("memory:") as people:
        people.enrol(np.eye(len(names)), names, model_fingerprint="mine")
        Enrolment(added=len(names)).print_summary(SearchOptions(gallery="g"), people)
    out = capsys.readouterr().out
    assert f"g: {text}\n" in out
    assert f"enrolled {counted(len(names), 'image')}, " in out


def test_search_remove_one_image_counts_with_singular(tmp_path):
    with gallery.open(f"faiss:{tmp_path}/g") as people:
        people.enrol(np.eye(2), ["a", "b"], model_fingerprint="0123456789abcdef")
    assert within("search.py", "--gallery=faiss:g", "remove", "a", cwd=tmp_path)[1] == (
        "erased 1 image of a\n"
    )


@pytest.fixture
def crops_of_one(tmp_path):
    """Return a folder with four images of anna."""
    (tmp_path / "crops/anna").mkdir(parents=True)
    for number in range(4):
        Image.new("RGB", (16, 32), (number, 0, 0)).save(tmp_path / f"crops/anna/{number}.png")
    return tmp_path


@pytest.mark.parametrize("flags", [(), ("--num_identities_per_batch=1",), ("--combine_all",)])
def test_train_one_person_raises(flags, crops_of_one):
    data_flags = ("--dataset=folder", "--data_dir=crops", "--run=run")
    code, _, err = within("train.py", *data_flags, *TINY, *flags, cwd=crops_of_one)
    assert code == 1
    assert err == ("error: `images` must be images of at least 2 persons, got 1 (anna).\n")
    assert not (crops_of_one / "run").exists()


def test_train_check_only_one_person_exits_with_error(crops_of_one):
    flags = ("--dataset=folder", "--data_dir=crops", "--check_only")
    code, out, _ = within("train.py", *flags, cwd=crops_of_one)
    assert code == 1
    assert "at least 2 are required  (anna)" in out


def test_steps_per_epoch_one_person_raises():
    images = data.PersonImages(["1.jpg"] * 4, [7] * 4, None)
    recipe = recipes.get("tiny").replace(num_identities_per_batch=1)
    with pytest.raises(
        InputError, match=r"`images` must be images of at least 2 persons, got 1 \(7\)"
    ):
        Plan.of(recipe, images)
