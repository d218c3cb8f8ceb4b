"""Readers decide which labels are distractors or unlabeled; elsewhere 0 and −1 are persons."""

import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import data, evaluation
from keras_reid.data import PersonImages
from keras_reid.data.mot import read_mot
from keras_reid.errors import InputError
from keras_reid.evaluation import Labels
from keras_reid.tracking import tracking_scores

MARKET = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def picture(path):
    """Image of noise that depends on the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).integers(
        0, 255, (12, 6, 3), np.uint8
    )
    Image.fromarray(noise).save(path)
    return str(path)


def trained(dataset):
    """Number of training images of each identity, with those of all parts."""
    return Counter(dataset.all_to_train().train.identity.tolist())


def msmt17(root):
    for part, folder, shots in (
        ("train", "train", (0, 1)),
        ("val", "train", (2,)),
        ("query", "test", (0,)),
        ("gallery", "test", (1, 2)),
    ):
        lines = []
        for person in range(3):
            for shot in shots:
                name = f"{person:04d}/{person:04d}_{shot:03d}_{shot + 1:02d}_0303morning_0_0.jpg"
                picture(root / folder / name)
                lines.append(f"{name} {person}\n")
        (root / f"list_{part}.txt").write_text("".join(lines))
    return root


def viper(root):
    for person in range(4):
        picture(root / f"cam_a/{person:03d}_45.bmp")
        picture(root / f"cam_b/{person:03d}_90.bmp")
    return root


def ilids_vid(root):
    for camera in ("cam1", "cam2"):
        for person in range(4):
            picture(root / f"sequences/{camera}/person{person:03d}/{camera}_{person:03d}_0.png")
    return root


def market(root, **parts):
    """Files of these names in the folders of Market-1501."""
    for part, names in parts.items():
        for name in names:
            picture(root / MARKET[part] / f"{name}_c{len(part)}s1_000001_00.jpg")
    return root


def folders(root, **parts):
    for part, names in parts.items():
        for name in names:
            picture(root / part / name / f"{part}.jpg")
    return root


@pytest.mark.parametrize(
    ("name", "make", "images"),
    [("msmt17", msmt17, 18), ("viper", viper, 8), ("ilids-vid", ilids_vid, 8)],
)
def test_all_to_train_person_0_is_kept(tmp_path, name, make, images):
    dataset = data.load(name, make(tmp_path))
    assert trained(dataset).total() == images
    assert trained(dataset)[0] == trained(dataset)[1]


def test_all_to_train_own_labels_keeps_all_images():
    labels = [0, 0, -1, 1], [0, -1], [0, -1, 1]
    parts = (PersonImages([f"{i}.jpg" for i in range(len(p))], p, [1] * len(p)) for p in labels)
    assert trained(data.ReidDataset("own", *parts)) == {0: 4, -1: 3, 1: 2}


def test_csv_identity_0_is_person(tmp_path):
    splits = ("train", "train", "query", "gallery")
    rows = [
        f"{i}.jpg,{label},{i},{split}" for i, split in enumerate(splits) for label in ("0", "-1")
    ]
    for i in range(4):
        picture(tmp_path / f"{i}.jpg")
    (tmp_path / "people.csv").write_text("\n".join(["path,identity,camera,split", *rows]))
    dataset = data.load("csv", tmp_path / "people.csv")
    assert trained(dataset) == {"0": 4}
    assert data.check(dataset).shared == ["0"]


def test_check_person_0_in_train_and_test_is_reported(tmp_path):
    files = [picture(tmp_path / f"{i}.png") for i in range(8)]
    own = PersonImages(files, [0, 0, 1, -1, 0, -1, 0, -1], [1, 1, 1, 1, 1, 1, 2, 2])
    report = data.check(data.ReidDataset("own", own[:4], own[4:6], own[6:]))
    assert report.shared == [-1, 0]
    assert not report.ok


def test_tracklets_of_person_0_keep_their_query(tmp_path):
    dataset = data.tracklet_dataset(data.load("msmt17", msmt17(tmp_path)))
    assert set(dataset.query.identity) == set(dataset.gallery.identity) == {1041, 1042, 1043}
    own = PersonImages(["a.jpg", "b.jpg", "c.jpg"], [0, 0, 1], [1, 2, 1])
    dataset = data.tracklet_dataset(data.ReidDataset("own", None, own[:1], own[1:]))
    assert dataset.query.identity.tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["market1501", "dukemtmc-reid", "cuhk03", "synthetic"])
def test_market_0000_in_gallery_only_is_distractor(tmp_path, name):
    root = market(tmp_path, train=["0002"], query=["0003"], gallery=["0000", "-1", "0003"])
    dataset = data.load(name, root)
    assert dataset.gallery.identity.tolist() == [0, 3]
    assert dataset.gallery.distractor.tolist() == [True, False]
    assert trained(dataset) == {2: 1, 3: 2}
    assert data.check(dataset).shared == []
    assert data.tracklet_dataset(dataset).query.identity.tolist() == [3, 3]


@pytest.mark.parametrize("other", ["train", "query"])
def test_market_0000_in_other_parts_is_person(tmp_path, other):
    parts = {"train": ["0002"], "query": ["0003"], "gallery": ["0000", "0003"]}
    parts[other] = [*parts[other], "0000"]
    dataset = data.load("market1501", market(tmp_path, **parts))
    assert not dataset.gallery.distractor.any()
    assert trained(dataset)[0] == 2
    assert data.check(dataset).shared == ([0] if other == "train" else [])


def test_mars_0000_in_gallery_is_distractor(tmp_path):
    for name in (
        "bbox_train/0001/0001C1T0001F001",
        "bbox_test/0000/0000C1T0001F001",
        "bbox_test/00-1/00-1C1T0001F001",
        "bbox_test/0003/0003C1T0001F001",
    ):
        picture(tmp_path / f"{name}.jpg")
    dataset = data.load("mars", tmp_path)
    assert dataset.gallery.distractor.tolist() == [True, False]
    assert dataset.query.identity.tolist() == [3]
    assert trained(dataset) == {1: 1, 3: 2}


def test_folder_junk_is_dropped_from_every_part(tmp_path):
    parts = {"train": ["-1", "a"], "query": ["-1", "b"], "gallery": ["-1", "b"]}
    dataset = data.load("folder", folders(tmp_path, **parts))
    assert trained(dataset) == {"a": 1, "b": 2}
    assert [set(part.identity) for part in dataset.parts().values()] == [{"a"}, {"b"}, {"b"}]


def test_folder_0000_in_gallery_only_is_distractor(tmp_path):
    root = folders(tmp_path, train=["0002"], query=["0003"], gallery=["-1", "0000", "0003"])
    dataset = data.load("folder", root)
    assert dataset.gallery.identity.tolist() == ["0000", "0003"]
    assert trained(dataset) == {"0002": 1, "0003": 2}
    alone = data.load("folder", root / "gallery")
    assert alone.train.identity.tolist() == ["0003"]


def test_folder_0000_in_other_parts_is_person(tmp_path):
    parts = {"train": ["0001"], "query": ["0000"], "gallery": ["0000"]}
    assert trained(data.load("folder", folders(tmp_path / "a", **parts)))["0000"] == 2
    parts = {"train": ["0000"], "query": ["0001"], "gallery": ["0000", "0001"]}
    leaking = data.load("folder", folders(tmp_path / "b", **parts))
    assert data.check(leaking).shared == ["0000"]
    alone = data.load("folder", folders(tmp_path / "c", people=["0000", "0001"]) / "people")
    assert trained(alone) == {"0000": 1, "0001": 1}


def test_distractors_stay_marked_in_rows_and_joined_images():
    images = PersonImages(["a", "b", "c"], [0, 0, 1], [1, 1, 1], distractor=[True, False, False])
    assert images[[2, 0]].distractor.tolist() == [False, True]
    assert data.joined(images, images[1:]).distractor.tolist() == [True, *[False] * 4]
    assert images.with_columns(x=[1, 2, 3]).distractor.tolist() == [True, False, False]
    with pytest.raises(InputError, match="`distractor` must have one entry per image"):
        PersonImages(["a", "b", "c"], [0, 0, 1], None, distractor=[True])


def test_rank_persons_0_and_minus_1_of_own_images_are_matched():
    query = PersonImages(["a", "b"], [0, -1], [1, 1])
    gallery = PersonImages(["c", "d", "e"], [-1, 0, 5], [2, 2, 2])
    result = evaluation.rank(np.array([[0.2, 0.1, 0.3], [0.1, 0.2, 0.3]]), query, gallery)
    assert (result.rank(1), result.protocol.valid_queries) == (1.0, 2)


@pytest.mark.parametrize("kind", [int, str])
def test_rank_unlabeled_rows_of_arrays_are_left_out(kind):
    distances = np.array([[0.1, 0.2, 0.3]])
    query, identity = Labels([kind(7)], [1]), [kind(label) for label in (-1, 7, 5)]
    assert evaluation.rank(distances, query, Labels(identity, [2, 2, 2])).rank(1) == 1


def test_mot_track_0_is_cut_and_scored(tmp_path):
    for number in (1, 2):
        picture(tmp_path / f"frames/{number}.png")
    lines = [f"{f},{track},{1 + 3 * track},1,3,12,1" for f in (1, 2) for track in (0, 1)]
    (tmp_path / "gt.txt").write_text("\n".join([*lines, "1,-1,1,1,3,12,1"]))
    cut = data.cut_tracklets(tmp_path / "frames", tmp_path / "gt.txt", tmp_path / "cut")
    assert Counter(cut.identity.tolist()) == {0: 2, 1: 2}
    truth = read_mot(tmp_path / "gt.txt")
    truth = truth[truth.identity >= 0]
    assert tracking_scores(truth, truth[truth.identity != 0]).misses == 2


def test_cluster_unlabeled_rows_are_not_scored(tmp_path):
    """Unlabeled images are in two groups; as one person they would lower the recall."""
    np.savez(
        tmp_path / "features.npz",
        embedding=np.repeat(np.eye(4, 8, dtype="float32"), 6, 0),
        identity=np.repeat([-1, -1, 3, 4], 6),
    )
    flags = ("--features=features.npz", "--k1=4", "--eps=0.5")
    code, out, err = within("cluster.py", *flags, cwd=tmp_path)
    assert code == 0, err
    assert "4 persons" in out
    assert "of 2 persons in 12 images" in out
