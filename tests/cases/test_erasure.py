"""Removed and replaced rows are in no file of a gallery."""

import random
import sqlite3
from contextlib import closing

import numpy as np
import pytest

from keras_reid import gallery
from keras_reid.gallery.database import DatabaseStore

MODEL = "0123456789abcdef"


def bytes_in(folder):
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def fill(people, step, chance):
    """Enroll persons with paths of many lengths, so that pages of the database are rebalanced."""
    long = "holiday in the mountains "
    rows = [
        (f"person{step}-{i}q", f"/photos/{long * chance.randint(0, 7)}photo{step}-{i}q-{j}.jpg")
        for i in range(12)
        for j in range(5)
    ]
    names, images = zip(*chance.sample(rows, len(rows)), strict=True)
    x = np.random.default_rng(step).standard_normal((len(rows), 128)).astype(np.float32)
    people.enrol(x, names, images=images, model_fingerprint=MODEL)
    held = {}
    for name, image in rows:
        held.setdefault(name, []).append(image)
    return held


def remove_many(people):
    """Return the names of persons that are removed between enrolments, and of the others."""
    removed, held, chance = [], {}, random.Random(0)
    for step in range(8):
        held |= fill(people, step, chance)
        for name in chance.sample(sorted(held), 4):
            assert people.remove(name) == 5
            del held[name]
            removed.append(name)
    return removed, list(held)


def left(folder, names):
    """Return which of these persons are in a file, by their names or by paths of their photos."""
    content = bytes_in(folder)
    tokens = {name: (name, name.replace("person", "photo") + "-") for name in names}
    return [name for name in names if any(text.encode() in content for text in tokens[name])]


def test_remove_between_enrolments_erases_names_and_paths(tmp_path):
    with gallery.open(f"file:{tmp_path}/people") as people:
        removed, held = remove_many(people)
        assert left(tmp_path, removed) == []
        assert left(tmp_path, held) == held


def test_remove_killed_before_vacuum_erases_at_the_next_opening(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(DatabaseStore, "purge", lambda store: None)
        with gallery.open(f"file:{tmp_path}/people") as people:
            removed, held = remove_many(people)
    assert left(tmp_path, removed)  # in gaps of pages
    with gallery.open(f"file:{tmp_path}/people") as people:
        assert left(tmp_path, removed) == []
        assert sorted(people.identities()) == sorted(held)


def test_relabel_leaves_no_free_pages_in_the_closed_gallery(tmp_path):
    names = [f"{'long ' * 100}{i}" for i in range(100)]
    with gallery.open(f"file:{tmp_path}/people") as people:
        people.enrol(np.eye(100), names, images=names, model_fingerprint=MODEL)
        assert people.relabel(names, ["right"] * 100) == 100
    with closing(sqlite3.connect(tmp_path / "people.rows")) as database:
        assert database.execute("pragma freelist_count").fetchall() == [(0,)]


@pytest.mark.parametrize("uri", ["memory:", "file:{}/people"])
def test_remove_erased_embedding_is_not_in_index_centers(uri, tmp_path):
    chance = np.random.default_rng(0)
    x = chance.standard_normal((10, 32))[chance.integers(0, 10, 1000)]
    x += 0.05 * chance.standard_normal(x.shape)
    x[:40] = chance.standard_normal((40, 32))  # far from all others
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    names = [f"p{i}" for i in range(1000)]
    with gallery.open(uri.format(tmp_path), approximate_from=100) as people:
        people.enrol(x, names, images=names, model_fingerprint=MODEL)

        def gaps():
            """Search, and return the distance of each of 40 rows to the nearest center."""
            assert people.search(x[50:51], 1)[0][0].identity == "p50"
            index = people.store.index.index
            centers = index.quantizer.reconstruct_n(0, index.nlist)
            return np.linalg.norm(centers - x[:40, None], axis=2).min(axis=1)

        row = int(gaps().argmin())
        assert gaps()[row] < 1e-6  # a center of its own
        assert people.remove(f"p{row}") == 1
        assert people.stats()["search"] == "exact"
        assert gaps()[row] > 0.1
        row = int(gaps().argmin())
        assert gaps()[row] < 1e-6
        new = -x[row : row + 1]
        people.enrol(new, ["new"], images=[f"p{row}"], model_fingerprint=MODEL, existing="replace")
        assert gaps()[row] > 0.1
        assert people.search(new, 1)[0][0].identity == "new"
        assert people.stats()["search"].startswith("inverted file")
