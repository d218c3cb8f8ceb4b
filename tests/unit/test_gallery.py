"""Galleries of every kind: search against brute force, erasure, bad input and crash safety."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reid import gallery
from keras_reid.errors import InputError
from keras_reid.evaluation import MatchCalibration
from keras_reid.gallery import approximate, milvus
from keras_reid.gallery import vectors as exact
from keras_reid.gallery.rows import Row
from keras_reid.io.writing import HOST
from keras_reid.reranking import k_reciprocal

MODEL = "0123456789abcdef"
COUNT, WIDTH = 600, 16
CALIBRATION = MatchCalibration((5, -10, 12, -0.4, -0.3), (14, -19, -1), 0.85, "an example")
ENDED = 2**22 + 1  # the number of no process

KINDS = {
    "memory": {"uri": "memory:"},
    "memory, approximate": {"uri": "memory:", "approximate_from": 100, "recall": 1.0},
    "file": {"uri": "file:{}/index"},
    "file, approximate": {"uri": "file:{}/index", "approximate_from": 100, "recall": 1.0},
    "milvus": {"uri": "{}/people.db"},
}
# Each gallery of Milvus Lite starts a server of its own, which takes a second.
EACH = [pytest.param(kind, marks=pytest.mark.slow) if kind == "milvus" else kind for kind in KINDS]
LASTING = [name for name in KINDS if not name.startswith("memory")]
EACH_LASTING = EACH[2:]


def opened(kind, folder):
    options = dict(KINDS[kind])
    return gallery.open(options.pop("uri").format(folder), **options)


@pytest.fixture(scope="module")
def people():
    """Embeddings of length 1 with their columns."""
    random = np.random.default_rng(0)
    x = random.standard_normal((COUNT, WIDTH)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return {
        "embeddings": x,
        "identities": [f"p'\"{i // 10}ä" for i in range(COUNT)],
        "cameras": [str(i % 3) for i in range(COUNT)],
        "times": [None if i % 7 == 0 else float(i) for i in range(COUNT)],
        "images": [f"{i}.jpg" for i in range(COUNT)],
        "model_fingerprint": MODEL,
    }


@pytest.fixture(params=EACH)
def filled(request, tmp_path, people):
    with opened(request.param, tmp_path) as store:
        assert store.enrol(**people) == COUNT
        yield store


def brute_force(people, queries, k, kept):
    """Rows (q, k) and distances by differences in float64."""
    rows = np.flatnonzero(kept)
    x = people["embeddings"][rows].astype(np.float64)
    distance = np.sqrt(((x[None] - queries[:, None].astype(np.float64)) ** 2).sum(-1))
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return rows[order], np.take_along_axis(distance, order, 1)


def check(people, queries, hits, k, kept):
    rows, distances = brute_force(people, queries, k, kept)
    assert [[hit.image for hit in row] for row in hits] == [[f"{i}.jpg" for i in r] for r in rows]
    found = [[hit.distance for hit in row] for row in hits]
    np.testing.assert_allclose(found, distances, atol=2e-3)
    for row in hits:
        for hit in row:
            i = int(hit.image[:-4])
            expected = (people[c][i] for c in ("images", "identities", "cameras", "times"))
            assert hit[:4] == tuple(expected)
            assert hit.reranked is None


def test_search_matches_brute_force(filled, people):
    random = np.random.default_rng(1)
    queries = random.standard_normal((20, WIDTH)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    check(people, queries, filled.search(queries, 7), 7, np.ones(COUNT, bool))
    own = filled.search(people["embeddings"][:5], 1)
    assert [row[0].image for row in own] == [f"{i}.jpg" for i in range(5)]
    assert all(row[0].distance < 1e-3 for row in own)


def test_search_with_filter_matches_brute_force(filled, people):
    queries = people["embeddings"][3:6] + np.float32(0.01)
    for where, kept in (
        ({"cameras": [1]}, lambda i: i % 3 == 1),
        ({"not_cameras": ["1", "2"]}, lambda i: i % 3 == 0),
        ({"after": 100, "before": 300.0}, lambda i: 100 <= i < 300 and i % 7),
        ({"before": 50}, lambda i: i < 50 and i % 7),
        ({"cameras": ["0", "2"], "after": 590}, lambda i: i % 3 != 1 and i >= 590 and i % 7),
    ):
        mask = np.array([bool(kept(i)) for i in range(COUNT)])
        hits = filled.search(queries, 5, gallery.Filter(**where))
        check(people, queries, hits, 5, mask)


def test_search_filter_with_few_rows_returns_fewer_hits(filled, people):
    hits = filled.search(people["embeddings"][:2], 50, gallery.Filter(after=590))
    assert [len(row) for row in hits] == [9, 9]
    assert filled.search(people["embeddings"][:1], 5, gallery.Filter(cameras=["none"])) == [[]]


def test_search_query_camera_is_excluded(filled, people):
    queries = people["embeddings"][:4]
    hits = filled.search(queries, 5, query_cameras=[0, "1", None, ""])
    for i, camera in enumerate(("0", "1", None, None)):
        mask = np.array([c != camera for c in people["cameras"]])
        check(people, queries[i : i + 1], hits[i : i + 1], 5, mask)


def test_search_query_camera_and_filter_both_apply(filled, people):
    queries = people["embeddings"][:1]
    hits = filled.search(queries, 5, gallery.Filter(cameras=["0", "1"]), query_cameras=["0"])
    check(people, queries, hits, 5, np.array([c == "1" for c in people["cameras"]]))


@pytest.mark.parametrize("kind", EACH)
def test_remove_erases_rows_from_results_and_files(kind, tmp_path, people):
    victim, x = "p'\"3ä", people["embeddings"]
    store = opened(kind, tmp_path)
    store.enrol(**people)
    store.search(x[:1], 3)  # builds an approximate index
    assert store.remove(victim) == 10
    assert store.remove(victim) == 0
    kept = np.array([name != victim for name in people["identities"]])

    def check_gone(store):
        assert store.count() == COUNT - 10
        assert victim not in store.identities()
        assert store.identities()["p'\"4ä"] == 10
        check(people, x[28:45], store.search(x[28:45], 6), 6, kept)

    check_gone(store)
    store.close()
    if kind in LASTING:
        held = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        assert x[40].tobytes() in held
        assert x[33].tobytes() not in held
        with opened(kind, tmp_path) as store:
            check_gone(store)
            again = [people[c][30:40] for c in ("identities", "cameras", "times", "images")]
            assert store.enrol(x[30:40], *again, model_fingerprint=MODEL) == 10
            assert store.count() == COUNT


def bytes_in(folder):
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("kind", [kind for kind in LASTING if kind.startswith("file")])
def test_remove_open_file_gallery_erases_rows_from_files(kind, tmp_path, people):
    store = opened(kind, tmp_path)
    store.enrol(**people)
    store.search(people["embeddings"][:1], 3)
    assert people["identities"][33].encode() in bytes_in(tmp_path)
    store.remove(people["identities"][33])
    held = bytes_in(tmp_path)
    assert people["embeddings"][33].tobytes() not in held
    assert people["identities"][33].encode() not in held
    store.close()


@pytest.mark.parametrize("kind", [kind for kind in LASTING if kind.startswith("file")])
def test_remove_killed_while_writing_index_leaves_no_removed_rows(
    kind, tmp_path, people, monkeypatch
):
    store = opened(kind, tmp_path)
    store.enrol(**people)
    store.search(people["embeddings"][:1], 3)
    monkeypatch.setattr(store.store, "_save_index", lambda index: 1 / 0)
    store.remove(people["identities"][33])
    with contextlib.suppress(ZeroDivisionError):
        store.search(people["embeddings"][:1], 3)
    store.store.database.close()  # as a kill does
    assert people["embeddings"][33].tobytes() not in bytes_in(tmp_path)
    left = tmp_path / f".{HOST}-{ENDED}-01234abc-0-index"
    left.write_bytes(people["embeddings"][33].tobytes())
    with opened(kind, tmp_path) as store:
        assert store.count() == COUNT - 10
        assert not left.exists()


@pytest.mark.parametrize("kind", EACH_LASTING)
def test_gallery_files_are_readable_only_by_owner(kind, tmp_path, people):
    folder = tmp_path / "private"
    folder.mkdir()
    with opened(kind, folder) as store:
        store.enrol(**people)
        store.search(people["embeddings"][:1], 3)
    for file in folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.slow
def test_remove_killed_milvus_lite_finishes_on_reopen(tmp_path):
    """Kill after the removed persons were noted and before the others are written again."""
    code = f"""if True:
        import os, signal
        import numpy as np
        from keras_reid import gallery
        x = np.random.default_rng(0).standard_normal((6, 16)).astype("float32")
        people = gallery.open({str(tmp_path / "people.db")!r})
        people.enrol(x, list("aabbcc"), model_fingerprint="m")
        people.store._rewrite = lambda: os.kill(os.getpid(), signal.SIGKILL)
        people.remove("b")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any(tmp_path.rglob("delta_*.parquet"))
    with gallery.open(str(tmp_path / "people.db")) as people:
        assert people.identities() == {"a": 2, "c": 2}
    people_files = tmp_path / "people.db/collections/people"
    assert not any(people_files.rglob("delta_*.parquet"))


@pytest.mark.parametrize("kind", EACH)
def test_remove_all_rows_allows_new_enrol(kind, tmp_path, people):
    with opened(kind, tmp_path) as store:
        store.enrol(people["embeddings"][:2], ["a", "a"], model_fingerprint=MODEL)
        assert store.remove("a") == 2
        assert store.count() == 0
        assert store.identities() == {}
        with pytest.raises(InputError, match="gallery is empty"):
            store.search(people["embeddings"][:1], 1)
        assert store.enrol(people["embeddings"][:2], ["a", "b"], model_fingerprint=MODEL) == 2
        assert store.search(people["embeddings"][1:2], 1)[0][0].identity == "b"


@pytest.mark.parametrize("kind", EACH_LASTING)
def test_gallery_reopened_keeps_rows_and_settings(kind, tmp_path, people):
    with opened(kind, tmp_path) as store:
        store.calibration = CALIBRATION
        store.enrol(**people)
        before = store.search(people["embeddings"][:9], 4)
    store.close()
    with pytest.raises(InputError, match="gallery is closed"):
        store.count()
    with opened(kind, tmp_path) as store:
        assert store.count() == COUNT
        assert (store.width, store.fingerprint, store.calibration) == (WIDTH, MODEL, CALIBRATION)
        assert store.search(people["embeddings"][:9], 4) == before
        stats = store.stats()
        assert (stats["rows"], stats["identities"]) == (COUNT, COUNT // 10)
        store.calibration = None
        assert store.calibration is None


def test_identify_decides_by_distance_to_two_persons(filled, people):
    queries = np.stack([people["embeddings"][5], -people["embeddings"][5]])
    with pytest.raises(InputError, match="must have a calibration"):
        filled.identify(queries)
    filled.calibration = CALIBRATION
    known, other = filled.identify(queries, model_fingerprint=MODEL)
    assert known.hits[0].image == "5.jpg"
    assert known.identity == known.hits[0].identity
    assert (known.decision.verdict, other.decision.verdict) == ("match", "no match")
    assert other.identity is None
    assert str(other).startswith("no match (nearest: ")
    x = people["embeddings"]
    names = np.array([str(name) for name in people["identities"]])
    away = np.linalg.norm(x - queries[0], axis=1)
    second = away[names != known.identity].min()
    expected = CALIBRATION.probability(0, second, COUNT // 10, 10)
    assert known.decision.probability == pytest.approx(float(expected), abs=1e-4)
    cameras = filled.identify(queries, top_k=3, query_cameras=["2", "2"])
    assert all(hit.camera != "2" for one in cameras for hit in one.hits)
    assert [len(one.hits) for one in cameras] == [3, 3]
    strict = gallery.Limits(1, 1)
    assert filled.identify(queries, limits=strict)[0].decision.verdict == "no match"


def test_identify_person_with_many_images_compares_with_the_second(tmp_path):
    """The second person is farther than the first twenty hits."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 0.01, (60, 4)), [[0.9, 0, 0, 0]]]).astype(np.float32)
    query = np.array([[0.43, 0, 0, 0]])
    with gallery.open("memory:") as store:
        store.enrol(x, ["a"] * 60 + ["b"], model_fingerprint=MODEL)
        store.calibration = CALIBRATION
        (found,) = store.identify(query)
        nearest = np.linalg.norm(x[:60] - query, axis=1).min()
        expected = CALIBRATION.probability(nearest, 0.47, 2, 30.5)
        assert found.decision.probability == pytest.approx(float(expected), abs=1e-4)
        store.remove("b")
        (found,) = store.identify(query)
        expected = CALIBRATION.probability(nearest, np.inf, 1, 60)
        assert found.decision.probability == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("kind", EACH_LASTING)
def test_calibrate_gallery_images_keeps_calibration(kind, tmp_path, people):
    with opened(kind, tmp_path) as store:
        with pytest.raises(InputError, match="must have a calibration"):
            store.calibrate()
        store.calibration = CALIBRATION
        assert store.calibrate() is None
        store.enrol(**people)
        found = store.calibrate()
        assert found is not None
        assert store.calibration == found.after
        assert (found.after.persons, found.after.images) == (COUNT // 10, 8 * COUNT // 10)
        assert store.persons() == COUNT // 10
        lines = found.table().splitlines()
        assert sum("person not enrolled: " in line for line in lines) == 3
        assert store.calibrate().after == found.after  # from the model's own again
        rows = zip(people["images"], people["identities"], strict=True)
        moved = [image for image, name in rows if name == people["identities"][0]]
        store.relabel(moved, [people["identities"][-1]] * len(moved))
        assert store.persons() == COUNT // 10 - 1


def test_gallery_with_threshold_of_earlier_version_warns_once(tmp_path, caplog):
    uri = f"file:{tmp_path / 'old'}"
    with gallery.open(uri) as store:
        settings = store.store.settings()
        store.store.save_settings({**settings, "threshold": {"value": 0.4}})
    with gallery.open(uri):
        pass
    assert "run keras-reid search calibrate" in caplog.text
    caplog.clear()
    with gallery.open(uri):
        pass
    assert not caplog.text


def test_verify_returns_distance_and_decision():
    first, second = np.eye(3)[[0, 0]], np.array([[1, 0, 0], [0, 1, 0]])
    same, different = gallery.verify(first, second, CALIBRATION)
    assert same.distance == 0
    assert same.decision == ("match", pytest.approx(float(CALIBRATION.pair_probability(0))))
    assert different.distance == pytest.approx(2**0.5)
    assert different.decision.verdict == "no match"
    (possible,) = gallery.verify([[0.0, 0.0]], [[0.684, 0.0]], CALIBRATION)
    assert str(possible.decision) == "possible match (73 %)"
    with pytest.raises(InputError, match=r"`second` must be of shape \(2, 3\), got \(1, 3\)"):
        gallery.verify(first, second[:1], CALIBRATION)
    with pytest.raises(InputError, match=r"got 0.2 and 0.5"):
        gallery.Limits(0.2, 0.5)


def test_enrol_invalid_rows_raise_and_add_nothing(filled, people):
    x = people["embeddings"][:2]
    good = {"identities": ["a", "b"], "images": ["new1", "new2"], "model_fingerprint": MODEL}
    nan = np.full((2, WIDTH), np.nan)
    for change, message in [
        ({"embeddings": nan}, "finite"),
        ({"embeddings": x[:, :5]}, r"of shape \(n, 16\), got \(2, 5\)"),
        ({"embeddings": x[0]}, "2-D"),
        ({"model_fingerprint": "another"}, "the model of the gallery, got 'another'"),
        ({"model_fingerprint": ""}, "fingerprint"),
        ({"images": ["new1", "0.jpg"]}, r"1 of 2 in the gallery, such as '0.jpg'"),
        ({"images": ["new1", "new1"]}, "got 'new1'"),
        ({"images": ["new1"]}, "`images` must be a list of one value for each of 2 rows, got 1"),
        (
            {"identities": ["a", ""]},
            "`identities` must be texts that are not empty, got '' in row 1",
        ),
        ({"identities": ["a"]}, "`identities` must be a list of one value for each"),
        ({"cameras": [1]}, "`cameras` must be a list of one value for each"),
        ({"times": [1.0]}, "or None, for each of 2 rows"),
        ({"times": [1.0, np.inf]}, "finite number of seconds"),
        ({"times": ["noon", None]}, "`times` must be one finite number"),
        ({"identities": ["a", "b" * 2000]}, "at most 1000 characters"),
        ({"existing": "update"}, "`existing` must be one of refuse, skip, replace"),
    ]:
        with pytest.raises(InputError, match=message):
            filled.enrol(**{"embeddings": x, **good, **change})
    assert filled.count() == COUNT


def test_search_invalid_arguments_raise(filled, people):
    x = people["embeddings"][:2]
    for arguments, message in [
        ({"top_k": COUNT + 1}, "`top_k` must be from 1 to 600, the size of the gallery, got 601"),
        ({"top_k": 0}, "got 0"),
        ({"top_k": 1.5}, "got 1.5"),
        ({"model_fingerprint": "another"}, "the model of the gallery, got 'another'"),
        (
            {"query_cameras": ["1"]},
            "`query_cameras` must be a list of one value for each of 2 rows, got 1",
        ),
        ({"reranking": "magic"}, "`reranking` must be one of none, k_reciprocal"),
        (
            {"reranking": "k_reciprocal", "reranking_options": {"k9": 1}},
            "options of 'k_reciprocal': .*, got k9",
        ),
        ({"reranking_options": {"k1": 1}}, "`reranking` must be a re-ranker"),
        (
            {"top_k": 10, "reranking": "k_reciprocal", "shortlist": 5},
            "`shortlist` must be at least 10, got 5",
        ),
    ]:
        with pytest.raises(InputError, match=message):
            filled.search(x, **arguments)
    for embeddings, message in [
        (x[:, :4], r"shape \(n, 16\)"),
        (x * np.nan, "finite"),
        ("a", "2-D"),
    ]:
        with pytest.raises(InputError, match=message):
            filled.search(embeddings)
    assert len(filled.search(x, COUNT)[0]) == COUNT


def test_enrol_existing_images_are_skipped(filled, people):
    x = people["embeddings"][:2] + np.float32(1)
    new = {"identities": ["a", "b"], "images": ["0.jpg", "new"], "model_fingerprint": MODEL}
    assert filled.enrol(x, **new, existing="skip") == 1
    assert filled.enrol(x, **new, existing="skip") == 0
    assert filled.contains(["0.jpg", "new", "nowhere"]) == {"0.jpg", "new"}
    assert filled.search(x[1:], 1)[0][0].identity == "b"


def test_enrol_without_images_numbers_rows(filled, people):
    for _ in range(2):
        assert filled.enrol(people["embeddings"][:2], ["n", "n"], model_fingerprint=MODEL) == 2
    assert filled.contains([f"n#{i}" for i in range(9)]) == {"n#1", "n#2", "n#3", "n#4"}


def test_enrol_without_images_skips_held_references(filled, people):
    x, model = people["embeddings"][:2], {"model_fingerprint": MODEL}
    filled.enrol(x[:1], ["other"], images=["m#1"], **model)
    assert filled.enrol(x, ["m", "m"], **model) == 2
    assert filled.contains([f"m#{i}" for i in range(9)]) == {"m#1", "m#2", "m#3"}
    assert filled.identities()["m"] == 2


def test_search_k_reciprocal_reranks_shortlist_per_query(filled, people):
    queries = people["embeddings"][:3] + np.float32(0.05)
    hits = filled.search(queries, 20, reranking="k_reciprocal", shortlist=100)
    rows, distances = brute_force(people, queries, 100, np.ones(COUNT, bool))
    for query, row, near, found in zip(queries, rows, distances, hits, strict=True):
        expected = k_reciprocal(query[None], people["embeddings"][row])[0]
        order = np.argsort(expected, kind="stable")[:20]
        np.testing.assert_allclose([h.reranked for h in found], expected[order], atol=1e-4)
        np.testing.assert_allclose(sorted(h.reranked for h in found), [h.reranked for h in found])
        truth = dict(zip((f"{i}.jpg" for i in row), near, strict=True))
        for hit in found:
            assert hit.distance == pytest.approx(truth[hit.image], abs=2e-3)


# --- The exact search


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_exact_nearest_any_block_size_matches_brute_force(data):
    count, k = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    k = min(k, count)
    values = st.integers(-2, 2)
    x = np.array(data.draw(st.lists(values, min_size=2 * count, max_size=2 * count)), np.float32)
    x = x.reshape(count, 2)
    queries = np.array(data.draw(st.lists(values, min_size=6, max_size=6)), np.float32)
    queries = queries.reshape(3, 2)
    kept = data.draw(
        st.none() | st.lists(st.booleans(), min_size=count, max_size=count).map(np.array)
    )
    before = exact.ROWS, exact.GROUP, exact.QUERIES
    exact.ROWS, exact.QUERIES, exact.GROUP = data.draw(st.sampled_from([8, 16, 64])), 2, 4
    try:
        vectors = exact.Vectors()
        cut = data.draw(st.integers(1, count))
        for part in (x[:cut], x[cut:]):
            if len(part):
                vectors.append(part)
        assert len(vectors) == count
        np.testing.assert_array_equal(vectors.take(np.arange(count)), x)
        index, distance = vectors.nearest(queries, k, kept)
    finally:
        exact.ROWS, exact.GROUP, exact.QUERIES = before
    squared = ((queries[:, None] - x) ** 2).sum(-1)
    mask = np.ones(count, bool) if kept is None else kept
    for row, found, far in zip(squared, index, distance, strict=True):
        order = sorted(np.flatnonzero(mask), key=lambda j: (row[j], j))[:k]
        assert found[: len(order)].tolist() == order
        np.testing.assert_allclose(far[: len(order)], np.sqrt(row[order]))
        assert (found[len(order) :] == exact.NO_ROW).all()
        assert np.isinf(far[len(order) :]).all()


def test_exact_nearest_multiple_blocks_matches_brute_force(monkeypatch):
    monkeypatch.setattr(exact, "ROWS", 200)
    random = np.random.default_rng(2)
    x = random.standard_normal((1010, 8)).astype(np.float32)
    vectors = exact.Vectors()
    vectors.append(x)
    assert [len(block) for block in vectors.blocks] == [200] * 5 + [10]
    for i in range(30):
        vectors.append(x[i : i + 1])
    assert [len(block) for block in vectors.blocks] == [200] * 5 + [26, 8, 4, 2]
    vectors.keep(np.arange(1040) < 1010)
    for k in (1, 5, 150, 1010):
        index, distance = vectors.nearest(x[:40], k)
        squared = ((x[:40, None].astype(np.float64) - x) ** 2).sum(-1)
        np.testing.assert_allclose(distance, np.sqrt(np.sort(squared, axis=1)[:, :k]), atol=1e-5)
        assert all(len(set(row)) == k for row in index.tolist())
        own = np.sqrt(np.take_along_axis(squared, index, axis=1))
        np.testing.assert_allclose(distance, own, atol=1e-5)
    kept = random.random(1010) < 0.5
    vectors.keep(kept)
    np.testing.assert_array_equal(vectors.take(np.arange(kept.sum())), x[kept])


def test_exact_nearest_near_duplicates_are_ordered():
    far = np.full((3, 4), 1000, np.float32)
    far[1, 0] += 0.01
    far[2, 0] += 0.005
    vectors = exact.Vectors()
    vectors.append(far)
    index, distance = vectors.nearest(far[:1], 3)
    assert index.tolist() == [[0, 2, 1]]
    np.testing.assert_allclose(distance[0], [0, 0.005, 0.01], rtol=0.02)


# --- The approximate index


def clustered(count, width=32, persons=200, seed=0):
    random = np.random.default_rng(seed)
    centers = np.random.default_rng(9).standard_normal((persons, width))
    x = centers[random.integers(persons, size=count)]
    x = x + 0.3 * random.standard_normal((count, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_approximate_search_measured_recall_meets_target():
    x = clustered(8000)
    with gallery.open("memory:", approximate_from=5000, recall=0.95) as store:
        store.enrol(x[:4000], range(4000), model_fingerprint=MODEL)
        store.search(x[:1], 1)
        assert store.stats()["search"] == "exact"
        store.enrol(x[4000:], range(4000, 8000), model_fingerprint=MODEL)
        queries = clustered(200, seed=1)
        found = store.search(queries, 10)
        stats = store.stats()
    lists = 8000 // 32
    assert stats["search"].endswith(f"of {lists} lists")
    assert int(stats["search"].split()[2]) < lists
    assert stats["recall"] >= 0.95
    true = np.argsort(((queries[:, None] - x) ** 2).sum(-1), axis=1)[:, :10]
    pairs = zip(found, true.tolist(), strict=True)
    recall = np.mean([len({int(hit.identity) for hit in row} & set(t)) / 10 for row, t in pairs])
    assert abs(recall - stats["recall"]) < 0.05


@pytest.mark.parametrize("k", [1, 100, 1500])
def test_approximate_search_returns_k_hits(k):
    x = clustered(3000)
    cameras = np.arange(3000) % 2
    with gallery.open("memory:", approximate_from=100, recall=0.5) as store:
        store.enrol(x, range(3000), cameras, model_fingerprint=MODEL)
        assert [len(row) for row in store.search(x[:50], k)] == [k] * 50
        hits = store.search(x[:50], k, gallery.Filter(cameras=[1]))
        assert store.stats()["search"].startswith("inverted file")
    assert [len(row) for row in hits] == [k] * 50
    assert all(hit.camera == "1" for row in hits for hit in row)
    assert all(len({hit.image for hit in row}) == k for row in hits)


def test_inverted_file_similar_rows_widen_candidates():
    """All rows are of few persons: the nearest ten of some hundreds, by codes of four bytes."""
    x, queries = clustered(6000, persons=8), clustered(300, persons=8, seed=1)
    vectors = exact.Vectors()
    vectors.append(x)
    index = approximate.InvertedFile.build(vectors, 7 * np.arange(6000), 0.9)
    assert index.numbers["wide"] > 1
    assert index.numbers["recall"] >= 0.9
    ids = index.search(queries, 10, None)
    assert ids.shape == (300, 10 * index.numbers["wide"])
    found = vectors.measured(queries, ids // 7)[0][:, :10]
    true = vectors.nearest(queries, 10)[0]
    recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(found, true, strict=True)])
    assert recall > 0.85
    allowed = 7 * np.arange(0, 6000, 3)
    assert np.isin(index.search(queries, 10, allowed), [*allowed, exact.NO_ROW]).all()
    some = 7 * np.arange(6000, 6010)
    index.add(x[:10], some)
    assert (index.search(x[:10], 10, None) == some[:, None]).any(axis=1).all()


# --- Files that are damaged, and other processes


@pytest.fixture
def closed_file(tmp_path, people):
    """Database of a closed gallery with an approximate index."""
    with opened("file, approximate", tmp_path) as store:
        store.enrol(**people)
        store.search(people["embeddings"][:1], 1)
    assert not (tmp_path / "index").exists()
    return tmp_path / "index.rows"


def index_of(store):
    return store.stats()["search"].split(",")[0]


def test_open_stored_index_is_searched_with_later_rows(closed_file, tmp_path, people):
    with opened("file, approximate", tmp_path) as store:
        assert index_of(store) == "inverted file"  # stored, not built by a search
        store.enrol(people["embeddings"][:1], ["late"], images=["late"], model_fingerprint=MODEL)
    with opened("file, approximate", tmp_path) as store:
        built = store.store.index
        hits = store.search(people["embeddings"][:1], 2)[0]
        assert {hit.image for hit in hits} == {"0.jpg", "late"}
        assert store.store.index is built
        assert built.index.ntotal == COUNT + 1


def test_remove_erases_stored_index(closed_file, tmp_path, people):
    with opened("file, approximate", tmp_path) as store:
        store.remove(people["identities"][33])
    with contextlib.closing(sqlite3.connect(closed_file)) as database:
        assert database.execute("select count(*) from candidates").fetchall() == [(0,)]


def test_failed_write_is_rolled_back(closed_file, tmp_path, people):
    with opened("file", tmp_path) as store:
        row = Row("new.jpg", "new")
        with pytest.raises(InputError, match="UNIQUE constraint failed"):
            store.store.write(["0.jpg"], people["embeddings"][:2], [row, row])
        assert store.count() == COUNT
        assert "new" not in store.identities()
        assert store.contains(["0.jpg", "new.jpg"]) == {"0.jpg"}


def test_open_damaged_index_is_rebuilt(closed_file, tmp_path, people):
    with contextlib.closing(sqlite3.connect(closed_file)) as database, database:
        database.execute("update candidates set codes = substr(codes, 1, 999)")
    with opened("file, approximate", tmp_path) as store:
        assert store.stats()["search"] == "exact"
        assert store.search(people["embeddings"][5:6], 1)[0][0].image == "5.jpg"
        assert index_of(store) == "inverted file"


def test_open_gallery_index_file_of_earlier_version_is_erased(closed_file, tmp_path, people):
    (tmp_path / "index").write_bytes(people["embeddings"][0].tobytes())
    with contextlib.closing(sqlite3.connect(closed_file)) as database, database:
        database.execute("insert into settings values ('index', '{\"probes\": 4}')")
    for _ in range(2):
        with gallery.open(f"faiss:{tmp_path}/index") as store:
            assert store.count() == COUNT
        assert not (tmp_path / "index").exists()


def test_open_file_gallery_other_file_of_same_name_is_kept(closed_file, tmp_path):
    (tmp_path / "index").write_text("a list of another program")
    with opened("file", tmp_path) as store:
        assert store.count() == COUNT
    assert (tmp_path / "index").read_text() == "a list of another program"


def test_open_missing_or_broken_rows_raises(closed_file, tmp_path):
    content = closed_file.read_bytes()
    closed_file.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"cannot be read.*Restore a copy"):
        opened("file", tmp_path)
    closed_file.unlink()
    (tmp_path / "index").touch()
    with pytest.raises(InputError, match=r"index\.rows not found. Restore it"):
        opened("file", tmp_path)
    closed_file.write_bytes(content)
    with opened("file", tmp_path) as store:
        assert store.count() == COUNT


@pytest.mark.parametrize("damage", ["image = x'00ff'", "embedding = x'0000'"])
def test_open_damaged_column_raises(closed_file, tmp_path, damage):
    with contextlib.closing(sqlite3.connect(closed_file)) as database, database:
        database.execute(f"update rows set {damage} where id = 7")
    with pytest.raises(InputError, match="cannot be read"):
        opened("file", tmp_path)


def test_open_file_gallery_twice_raises(closed_file, tmp_path):
    with (
        opened("file", tmp_path) as store,
        pytest.raises(InputError, match="Only one process can open it"),
    ):
        opened("file", tmp_path)
    assert store


OTHER = "import sys\nfrom keras_reid import gallery\ngallery.open(sys.argv[1])"


@pytest.mark.slow
def test_open_milvus_lite_in_second_process_fails(tmp_path, people):
    with opened("milvus", tmp_path) as store:
        store.enrol(**people)
        command = [sys.executable, "-c", OTHER, str(tmp_path / "people.db")]
        other = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Close it in other processes" in other.stderr
        assert store.count() == COUNT


@pytest.mark.parametrize("uri", ["", "people", "file:", "ftp://host", "memory"])
def test_open_unknown_address_raises(uri):
    with pytest.raises(InputError, match=r"`gallery` must be memory:, file:NAME"):
        gallery.open(uri)


@pytest.mark.parametrize("options", [{"approximate_from": 0}, {"recall": 0}, {"recall": 1.5}])
def test_open_options_out_of_range_raise(options):
    with pytest.raises(
        InputError,
        match=r"`approximate_from` must be at least 1, got 0|`recall` must be in \(0, 1\]",
    ):
        gallery.open("memory:", **options)


@pytest.mark.parametrize(
    "where", [{"cameras": "1"}, {"not_cameras": 3}, {"after": np.nan}, {"before": np.inf}]
)
def test_filter_invalid_values_raise(where):
    with pytest.raises(
        InputError,
        match=r"`(cameras|not_cameras|after|before)` must be a (list of cameras|finite time)",
    ):
        gallery.Filter(**where)


def test_open_unreachable_milvus_raises_with_start_command():
    with pytest.raises(InputError, match=r"http://127.0.0.1:9.*docker compose up"):
        gallery.open("http://127.0.0.1:9")


def test_open_file_as_gallery_folder_raises(tmp_path):
    (tmp_path / "people.db").write_text("hello")
    with pytest.raises(InputError, match="File exists"):
        gallery.open(tmp_path / "people.db")
    with pytest.raises(InputError, match="Choose another folder"):
        gallery.open(tmp_path / "people.db" / "inside.db")
    with pytest.raises(InputError, match="Choose another name"):
        gallery.open(f"file:{tmp_path}/people.db/inside")


# --- Texts that others take for language

WRITTEN = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)
TRICKY = [
    *("O'Brien", 'a"b', "back\\slash", "x\\temp", "a\\\\b", "\\u0041", "\\", "%_*?"),
    "' or ''='",
]


@pytest.mark.parametrize("kind", [EACH_LASTING[0], EACH_LASTING[-1]])
def test_enrol_names_with_quotes_and_backslashes_round_trip(kind, tmp_path):
    check_names(kind, tmp_path, TRICKY)


@pytest.mark.nightly
@pytest.mark.parametrize("kind", [EACH_LASTING[0], EACH_LASTING[-1]])
@settings(max_examples=10, deadline=None)
@given(names=st.lists(WRITTEN, min_size=3, max_size=12, unique=True))
def test_enrol_arbitrary_text_names_round_trip(kind, tmp_path_factory, names):
    check_names(kind, tmp_path_factory.mktemp("texts"), names)


def check_names(kind, folder, names):
    x = np.eye(len(names), max(3, len(names)), dtype=np.float32)
    with opened(kind, folder) as store:
        given_ = {"cameras": names, "images": names, "model_fingerprint": MODEL}
        assert store.enrol(x, names, **given_) == len(names)
        assert store.enrol(x, names, **given_, existing="skip") == 0
        assert store.contains([*names, "nobody"]) == {*names}
        found = store.search(x, 2, reranking="k_reciprocal", reranking_options={"k1": 2, "k2": 1})
        assert [hits[0].image for hits in found] == names
        for name in names:
            (hits,) = store.search(x[:1], 1, gallery.Filter(cameras=[name]))
            assert [hit.identity for hit in hits] == [name]
            assert store.remove(name) == 1
        assert store.count() == 0


def test_enrol_control_characters_in_names_raise(filled, people):
    before = filled.count()
    for text in ("a\nb", "\x1b[2J", "tab\t", "\x7f", "half\udce9"):
        for column in ("identities", "cameras", "images"):
            values = {"identities": ["a"], "cameras": ["1"], "images": ["new.jpg"], column: [text]}
            with pytest.raises(InputError, match="without control characters") as refused:
                filled.enrol(people["embeddings"][:1], **values, model_fingerprint=MODEL)
            assert text not in str(refused.value)
        assert filled.remove(text) == 0
        assert filled.contains([text]) == set()
        assert filled.count() == before


def record_of_0_2_0(row, embedding):
    """Row without digest and key of the spelling; unknown times are null."""
    values = {"id": milvus.key(row.image), **row._asdict(), "embedding": embedding}
    del values["digest"]
    return values


@pytest.mark.slow
def test_open_milvus_gallery_with_null_times_is_searched(tmp_path, people, monkeypatch):
    def old(self, collection, width):
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", self.types.INT64, is_primary=True)
        for name in ("image", "identity", "camera", "attributes"):
            schema.add_field(name, self.types.VARCHAR, max_length=milvus.TEXT)
        schema.add_field("time", self.types.DOUBLE, nullable=True)
        schema.add_field("embedding", self.types.FLOAT_VECTOR, dim=width)
        index = self.client.prepare_index_params()
        index.add_index("embedding", index_type="FLAT", metric_type="L2")
        self.client.create_collection(collection, schema=schema, index_params=index)

    half = COUNT // 2
    parts = [
        {k: v if k == "model_fingerprint" else v[at] for k, v in people.items()}
        for at in (slice(half), slice(half, None))
    ]
    with monkeypatch.context() as patch:
        patch.setattr(milvus.MilvusStore, "_create_people", old)
        patch.setattr(milvus, "_record", record_of_0_2_0)
        with opened("milvus", tmp_path) as store:
            store.store.converted = True
            assert store.enrol(**parts[0]) == half
    queries, every = people["embeddings"][:9], np.ones(COUNT, bool)
    where, early = gallery.Filter(before=400), np.arange(COUNT) < 400
    known = np.arange(COUNT) % 7 > 0
    with opened("milvus", tmp_path) as store:
        assert store.enrol(**parts[1]) == half
        check(people, queries, store.search(queries, 7), 7, every)
        check(people, queries, store.search(queries, 7, where), 7, early & known)
        assert store.remove(people["identities"][-1]) == 10  # writes all others again
        every[-10:] = False
        check(people, queries, store.search(queries, 7), 7, every)
        check(people, queries, store.search(queries, 7, where), 7, early & known)


# --- A kill at any moment


@pytest.mark.parametrize(
    "kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.nightly)]
)
def test_gallery_killed_process_keeps_acknowledged_rows(tmp_path, kills):
    """Kills of a process that enrols, so many for each kind of file; see killed.py."""
    script = [sys.executable, ROOT / "tests/killed.py", tmp_path, str(kills)]
    run = subprocess.run(script, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1].startswith(f"{2 * kills} kills")
    removed = [line for line in run.stdout.splitlines() if "kills while removing" in line]
    assert len(removed) == 2


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(4, marks=pytest.mark.slow), pytest.param(60, marks=pytest.mark.nightly)],
)
def test_gallery_long_use_does_not_leak_memory(tmp_path, seconds):
    """Each kind of gallery in a separate process; see soak.py."""
    soak = [sys.executable, ROOT / "tests/soak.py", tmp_path, str(seconds)]
    run = subprocess.run(soak, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    assert len(run.stdout.splitlines()) == 3


@pytest.mark.slow
def test_open_milvus_lite_leftover_log_counts_rows_once(tmp_path, monkeypatch):
    """Killed after the segment was written and before the log was dropped."""
    pytest.importorskip("milvus_lite")
    uri, log = tmp_path / "people.db", tmp_path / "log"
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    names = [f"p{i}" for i in range(40)]
    with gallery.open(uri) as people:
        with monkeypatch.context() as patch:
            patch.setattr(people.store, "_synchronize", lambda collection: None)
            people.enrol(x, names, model_fingerprint="model")
        monkeypatch.setattr(people.store, "_mark", lambda unclean: None)  # a kill leaves the mark
        shutil.copytree(uri / "collections/people/wal", log)
        people.store.client.flush("people")
    assert any(file.stat().st_size for file in log.iterdir())
    shutil.copytree(log, uri / "collections/people/wal", dirs_exist_ok=True)
    with gallery.open(uri) as people:
        assert people.identities() == dict.fromkeys(sorted(names), 1)
        assert people.count() == 40
        hits = people.search(x[:1], 40)[0]
        assert len({hit.image for hit in hits}) == 40


@pytest.mark.slow
def test_open_milvus_lite_empty_index_is_rebuilt(tmp_path):
    pytest.importorskip("milvus_lite")
    uri = tmp_path / "people.db"
    x = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    with gallery.open(uri) as people:
        people.enrol(x, [f"p{i}" for i in range(40)], model_fingerprint="model")
    indexes = [f for f in uri.glob("collections/people/partitions/*/indexes/*") if f.is_file()]
    assert indexes
    for file in indexes:
        file.write_bytes(b"")
    with gallery.open(uri) as people:
        assert people.count() == 40
        assert people.search(x[7:8], 1)[0][0].identity == "p7"


# --- A server and several processes

LOAD = """
import sys
import numpy as np
from keras_reid import gallery
uri, seed = sys.argv[1], int(sys.argv[2])
x = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
with gallery.open(uri) as people:
    for i in np.random.default_rng(seed).integers(500, size=60):
        (hits,) = people.search(x[i : i + 1], 3, model_fingerprint="model")
        assert hits[0].image == f"{i}.jpg" and hits[0].distance < 1e-3, hits
print("ok")
"""


@pytest.mark.slow
def test_milvus_server_concurrent_searches_return_correct_hits(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"),
            *("--port", str(port), "--data-dir", str(tmp_path / "served.db")),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        store = patiently(lambda: gallery.open(uri))
        x = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
        names = [f"{i}.jpg" for i in range(500)]
        assert store.enrol(x, names, images=names, model_fingerprint="model") == 500
        searchers = [
            subprocess.Popen(
                [sys.executable, "-c", LOAD, uri, str(seed)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for seed in range(3)
        ]
        outputs = [searcher.communicate(timeout=200) for searcher in searchers]
        assert [out for out, _ in outputs] == ["ok\n"] * 3, outputs
        assert store.remove("7.jpg") == 1
        assert store.count() == 499
        store.close()
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def milvus_server(tmp_path):
    """The address of the server that KERAS_REID_MILVUS names, or of one that is started here."""
    if named := os.environ.get("KERAS_REID_MILVUS"):
        yield named.rstrip("/")
        return
    packed = importlib.util.find_spec("milvus")
    if packed is None:
        pytest.skip("pip install milvus, or name a server by KERAS_REID_MILVUS")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, packed.origin, f"--data={tmp_path}/server", f"--proxy-port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        patiently(lambda: gallery.open(uri).close(), 180)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.nightly
def test_milvus_server_enrol_search_remove_match_brute_force(milvus_server, people):
    """In a database of its own, http://HOST:PORT/NAME, which is dropped again."""
    from pymilvus import MilvusClient

    name = f"keras_reid_{os.getpid()}"
    admin = MilvusClient(milvus_server)
    admin.create_database(name)
    uri = f"{milvus_server}/{name}"
    queries, every = people["embeddings"][:20], np.ones(COUNT, bool)
    try:
        with gallery.open(uri) as store:
            assert store.enrol(**people) == COUNT
            assert store.enrol(**people, existing="skip") == 0
            check(people, queries, store.search(queries, 7), 7, every)
        with gallery.open(uri) as store:
            where = gallery.Filter(cameras=["1"], after=100)
            kept = np.array([i % 3 == 1 and i >= 100 and i % 7 > 0 for i in range(COUNT)])
            check(people, queries, store.search(queries, 7, where), 7, kept)
            where = gallery.Filter(before=100)
            kept = np.array([i < 100 and i % 7 > 0 for i in range(COUNT)])
            check(people, queries, store.search(queries, 7, where), 7, kept)
            assert store.remove(people["identities"][0]) == 10
            assert store.count() == COUNT - 10
            assert people["identities"][0] not in store.identities()
    finally:
        inside = MilvusClient(uri)
        for collection in inside.list_collections():
            inside.drop_collection(collection)
        admin.drop_database(name)


def patiently(work, seconds=60):
    """The result once the server answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            return work()
        except InputError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


@pytest.mark.slow
def test_open_gallery_does_not_import_tensorflow(tmp_path):
    script = "import sys\nfrom keras_reid import gallery\ngallery.open(sys.argv[1]).close()\n"
    script += "assert 'tensorflow' not in sys.modules"
    command = [sys.executable, "-c", script, str(tmp_path / "people.db")]
    env = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("moved", "copied", "damaged"),
    [
        ("people", "people_next", ["people_next/schema.json"]),
        ("people", "people_next", ["people_next/partitions"]),
        ("people_old", "people_next", []),
        ("people", "people_old", ["people_old/partitions"]),
        ("people", "people_old", ["people_old/schema.json"]),
        ("people_next", None, []),
    ],
)
def test_milvus_killed_rewrite_keeps_people(tmp_path, moved, copied, damaged):
    """States of the collections at a kill between two steps of a rewrite, or within one."""
    uri = str(tmp_path / "people.db")
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    with gallery.open(uri) as store:
        store.enrol(x, ["a", "b", "c"], model_fingerprint="model")
    folder = tmp_path / "people.db/collections"
    (folder / "people").rename(folder / "kept")
    if copied:
        shutil.copytree(folder / "kept", folder / copied)
    (folder / "kept").rename(folder / moved)
    for name in damaged:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with gallery.open(uri) as store:
        assert list(store.identities()) == ["a", "b", "c"]
        assert store.remove("b") == 1
        assert [store.search(x[[i]], 1)[0][0].identity for i in (0, 2)] == ["a", "c"]
    assert sorted(path.name for path in folder.iterdir()) == ["people", "people_settings"]
    content = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert [row.tobytes() in content for row in x] == [True, False, True]
