"""Union of data sets: labels that never coincide, the column "source", unlabeled images."""

import numpy as np
import pytest
from PIL import Image

from keras_reid import data
from keras_reid.cli import enrol
from keras_reid.data import PersonImages, ReidDataset
from keras_reid.data.pipeline import labels_of
from keras_reid.errors import InputError
from keras_reid.training import RECIPES, Plan


def images(identity, camera=None, **columns):
    return PersonImages([f"{i}.jpg" for i in range(len(identity))], identity, camera, columns)


def only_train(train):
    return ReidDataset("mine", train, None, None)


def test_union_equal_labels_of_sources_stay_different():
    both = data.union([only_train(images([7, 7, 9], [1, 2, 1]))] * 2, ["a", "b"])
    train = both.train
    assert both.name == "a+b"
    assert train.identity.tolist() == ["a/7", "a/7", "a/9", "b/7", "b/7", "b/9"]
    assert train.camera.tolist() == ["a/1", "a/2", "a/1", "b/1", "b/2", "b/1"]
    assert train.columns["source"].tolist() == ["a"] * 3 + ["b"] * 3
    assert (both.query, both.gallery) == (None, None)
    labels = labels_of(train)
    assert labels["source"].tolist() == [0, 0, 0, 1, 1, 1]
    assert labels["source"].dtype == np.int32


def test_union_parts_of_sources_are_kept_with_distractors():
    gallery = PersonImages(["g.jpg", "d.jpg"], [3, 0], [2, 2], distractor=[False, True])
    tested = ReidDataset("tested", images([1], [1]), images([3], [1]), gallery)
    both = data.union([only_train(images(["x"], ["c"])), tested], ["a", "b"])
    assert both.train.identity.tolist() == ["a/x", "b/1"]
    assert both.query.identity.tolist() == ["b/3"]
    assert both.gallery.identity.tolist() == ["b/3", "b/0"]
    assert both.gallery.distractor.tolist() == [False, True]


def test_union_source_without_cameras_has_one_per_part():
    without = ReidDataset("mine", images([1]), images([2]), images([2]))
    both = data.union([without, only_train(images([1], [4]))], ["a", "b"])
    assert both.train.camera.tolist() == ["a/train", "b/4"]
    assert (both.query.camera[0], both.gallery.camera[0]) == ("a/query", "a/gallery")
    alone = data.union([without, without], ["a", "b"])
    assert alone.train.camera is None


def test_union_unlabeled_images_stay_unlabeled():
    train = data.union([only_train(images(["1", "", "2"]))], ["a"]).train
    assert train.identity.tolist() == ["a/1", "", "a/2"]
    assert train.unlabeled.tolist() == [False, True, False]


def test_union_tracklets_are_numbered_consecutively():
    tracked = only_train(images([1, 1, 2], [1, 1, 1], tracklet=[5, 5, 9]))
    single = only_train(images([1, 1], [1, 1]))
    train = data.union([tracked, single, tracked], ["a", "b", "c"]).train
    assert train.columns["tracklet"].tolist() == [0, 0, 1, 2, 3, 4, 4, 5]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], "`names` must be one for each data set, got 1 for 2"),
        (["a", "a"], "`names` must be different names, got 'a' 2 times"),
        (["a", "b/c"], "`names` must be names of letters, .*, got 'b/c'. Use NAME=PATH"),
        (["a", ""], "`names` must be names of letters"),
    ],
)
def test_union_invalid_names_raise(names, message):
    with pytest.raises(InputError, match=message):
        data.union([only_train(images([1]))] * 2, names)


def table(folder, text):
    for name in "abcd":
        Image.new("RGB", (8, 16)).save(folder / f"{name}.png")
    (folder / "t.csv").write_text(f"path,identity,split\n{text}", encoding="utf-8")
    return folder / "t.csv"


def test_load_csv_empty_identity_is_unlabeled(tmp_path):
    file = table(tmp_path, "a.png,1,train\nb.png,,train\n")
    train = data.load("csv", file).train
    assert train.unlabeled.tolist() == [False, True]
    names, indices = train.classes()
    assert (names.tolist(), indices.tolist()) == (["1"], [0, -2])


def test_plan_of_unlabeled_images_raises():
    train = images(["a", "b", ""])
    with pytest.raises(InputError, match=r"images with identities .*, got 1 without"):
        Plan.of(RECIPES["tiny"].replace(num_identities_per_batch=2), train)


def test_enrolled_table_without_identity_raises(tmp_path):
    file = table(tmp_path, "a.png,1,train\nb.png,,train\n")
    with pytest.raises(InputError, match=r"must have an identity .*, got none of .*b\.png"):
        enrol._people(file)


def test_hold_out_unlabeled_images_stay_in_training():
    train = images(["a", "a", "", "b", "b", "c", "c", "d", "d", ""])
    part = only_train(train).hold_out(0.5)
    assert part.train.unlabeled.sum() == 2
    assert len(part.train.classes()[0]) == 2
    assert not part.query.unlabeled.any()
    assert not part.gallery.unlabeled.any()


def test_check_unlabeled_images_are_no_identity(tmp_path):
    file = table(tmp_path, "a.png,1,train\nb.png,,train\nc.png,2,train\nd.png,2,train\n")
    report = data.check(data.load("csv", file))
    assert report.sizes["train"] == (4, 2, None)
    assert report.few == ["1", "2"]
