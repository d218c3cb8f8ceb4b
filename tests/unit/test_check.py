"""Dataset validation: each planted problem is reported, and a clean set passes."""

import numpy as np
import pytest
from PIL import Image

from keras_reid import data
from keras_reid.data.datasets import ReidDataset
from keras_reid.data.images import PersonImages


@pytest.fixture
def make(tmp_path):
    """make(name, ...) draws files that differ from one another and returns their paths."""

    def draw(*names):
        for name in names:
            path = tmp_path / f"{name}.png"
            seed = int.from_bytes(name.encode(), "little")
            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 4, 3), np.uint8)).save(
                path
            )
        return [str(tmp_path / f"{name}.png") for name in names]

    return draw


@pytest.fixture
def clean(make):
    """Two training persons with two images each, two queries matched by the other camera."""
    return ReidDataset(
        "tiny",
        train=PersonImages(make("t0", "t1", "t2", "t3"), [1, 1, 2, 2], [1, 2, 1, 2]),
        query=PersonImages(make("q0", "q1"), [3, 4], [1, 1]),
        gallery=PersonImages(make("g0", "g1", "g2"), [3, 4, 0], [2, 2, 1]),
    )


def replaced(dataset, **parts):
    return ReidDataset(
        dataset.name,
        **({**dict.fromkeys(("train", "query", "gallery")), **dataset.parts()} | parts),
    )


def test_check_clean_dataset_is_ok(clean):
    report = data.check(clean, num_instances=2)
    assert report.ok
    assert str(report).splitlines() == [
        "tiny: ok",
        "",
        "part        images  identities  cameras",
        "train            4           2        2",
        "query            2           2        1",
        "gallery          3           3        2",
        "",
        "     0  unreadable files",
        "     0  identities in both train and test",
        "     0  queries with no match in another camera",
        "     0  groups of files with the same content",
        "     0  train identities with fewer than 2 images",
    ]


def test_check_few_images_are_reported_but_ok(clean):
    report = data.check(clean)
    assert report.few == [1, 2]
    assert report.ok
    assert "     2  train identities with fewer than 4 images  (1, 2)" in str(report)


def test_check_unreadable_and_missing_files_are_reported(clean, tmp_path):
    (tmp_path / "t1.png").write_bytes((tmp_path / "t1.png").read_bytes()[:60])
    (tmp_path / "g0.png").unlink()
    (tmp_path / "q0.png").write_bytes(b"")
    report = data.check(clean)
    assert [path.rsplit("/")[-1] for path in report.unreadable] == ["g0.png", "q0.png", "t1.png"]
    assert report.duplicates == []
    assert not report.ok
    assert "tiny: has faults" in str(report)


def test_check_shared_train_and_test_identities_are_reported(clean, make):
    train = PersonImages(make("t0", "t1", "t2"), [3, 0, 5], [1, 2, 2])
    report = data.check(replaced(clean, train=train))
    assert report.shared == [0, 3]
    assert not report.ok


def test_check_queries_without_match_are_reported(clean, make):
    # 3 is in the gallery but only by the query's own camera, 4 by another one, 9 not at all
    query = PersonImages(make("q0", "q1", "q2"), [3, 4, 9], [2, 1, 1])
    report = data.check(replaced(clean, query=query))
    assert report.unmatched == make("q0", "q2")
    assert not report.ok


def test_check_queries_without_cameras_match_any_image(clean, make):
    query = PersonImages(make("q0", "q2"), [3, 9], None)
    gallery = PersonImages(make("g0"), [3], None)
    report = data.check(replaced(clean, train=None, query=query, gallery=gallery))
    assert report.unmatched == make("q2")
    assert "query            2           2     none" in str(report)


def test_check_duplicate_files_are_reported(clean, make, tmp_path):
    (tmp_path / "g2.png").write_bytes((tmp_path / "t0.png").read_bytes())
    assert data.check(clean).duplicates == [make("t0", "g2")]
    twice = replaced(clean, query=PersonImages(make("q0", "q1", "q1"), [3, 4, 4], [1, 1, 1]))
    report = data.check(twice)
    assert make("q1", "q1") in report.duplicates
    assert not report.ok
    assert "q1.png = " in str(report)


def test_check_long_findings_are_truncated(make):
    names = [f"n{number}" for number in range(9)]
    train = PersonImages(make(*names), list("abcdefghi"), [1] * 9)
    report = data.check(ReidDataset("d", train, None, None))
    assert report.few == list("abcdefghi")
    assert "     9  train identities with fewer than 4 images  (a, b, c and 6 more)" in str(report)
