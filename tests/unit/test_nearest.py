"""Blocked squared distances and nearest rows: arrays and graph against a float64 oracle."""

import numpy as np
import oracle_reranking as oracle
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reid.nearest import arrays, graph


def points(n, d=16, seed=0, offset=3.0):
    """Float32 (n, d) far from the origin, with a zero row and two copies."""
    x = (offset + np.random.default_rng(seed).normal(size=(n, d))).astype("float32")
    x[1], x[n // 2] = 0, x[0]
    return x


def mapped(folder, x):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def squared_of_two(x, y):
    both = oracle.squared_distances(np.concatenate([x, y]))
    return both[: len(x), len(x) :]


@pytest.fixture
def small_blocks(monkeypatch):
    for module, name, value in (
        (arrays, "READ_ELEMENTS", 7 * 16),
        (arrays, "MAPPED_ELEMENTS", 3 * 40),
        (arrays, "BLOCK_ELEMENTS", 5 * 40),
        (graph, "QUERIES", 4),
        (graph, "PAIR_ELEMENTS", 3 * 16),
    ):
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("unit_length", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_comparison_matches_oracle(small_blocks, tmp_path, held, unit_length):
    query, gallery = points(10, seed=1), points(40)
    query[3] = gallery[0]
    side = gallery if held else mapped(tmp_path, gallery)
    comparison = arrays.Comparison(query, side, unit_length)
    assert comparison.gallery.mapped != held
    if unit_length:
        query, gallery = (arrays.unit(x.astype(float)) for x in (query, gallery))
    expected = squared_of_two(query, gallery)
    if unit_length:
        expected[1], expected[:, 1] = 2, 2
    for start, stop in ((0, 10), (2, 5)):
        squared = comparison.squared(start, stop)
        np.testing.assert_allclose(squared, expected[start:stop], rtol=1e-4, atol=1e-6)
    assert (comparison.squared(3, 4)[0, [0, 20]] == 0).all()


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
def test_feature_rows_of_mapped_gallery_equal_rows_in_memory(small_blocks, tmp_path, name):
    query, gallery = points(10, seed=1), points(40)
    rows = [arrays.feature_rows(query, g, name) for g in (gallery, mapped(tmp_path, gallery))]
    np.testing.assert_allclose(rows[0].matrix(), rows[1].matrix(), rtol=1e-5, atol=1e-6)
    starts = [[start for start, _ in side.blocks()] for side in rows]
    assert starts == [[0, 5], [0, 3, 6, 9]]
    first = next(rows[0].blocks())[1]
    first[:] = -1  # the caller's own
    assert (rows[0].rows(0, 5) >= 0).all()


def test_points_of_several_parts_are_numbered_through(small_blocks, tmp_path):
    x = points(40)
    whole, parts = arrays.Points(x), arrays.Points(x[:9], mapped(tmp_path, x[9:]))
    assert (parts.size, parts.width, parts.mapped, whole.mapped) == (40, 16, True, False)
    for first in (0, 5, 30):
        starts, blocks = zip(*parts.blocks(first), strict=True)
        assert list(starts) == list(range(first, 40, 7))
        np.testing.assert_allclose(np.concatenate(blocks), whole.centered(first, 40), atol=1e-5)
    np.testing.assert_allclose(parts.norms, whole.norms, rtol=1e-5)
    np.testing.assert_array_equal(np.flatnonzero(parts.zero), [1])


@pytest.mark.parametrize("kind", ["features", "kept", "mapped"])
def test_graph_distances_match_arrays_and_oracle(small_blocks, tmp_path, kind):
    x = points(50)
    query, gallery = x[:10], x[10:]
    source = {
        "features": lambda: graph.FeatureDistances(tf.constant(x)),
        "kept": lambda: graph.KeptDistances(tf.constant(x), 10),
        "mapped": lambda: graph.MappedDistances(query, mapped(tmp_path, gallery)),
    }[kind]()
    rows = source.rows(0, 10, 10).numpy()
    assert rows.shape == (10, 64 - 10)  # whole groups of all images
    assert np.isinf(rows[:, 40:]).all()
    np.testing.assert_allclose(rows[:, :40], squared_of_two(query, gallery), rtol=1e-4, atol=1e-4)
    in_numpy = arrays.Comparison(query, gallery).squared(0, 10)
    np.testing.assert_allclose(rows[:, :40], in_numpy, rtol=1e-4, atol=1e-4)
    columns = source.columns(3, 17, 20).numpy()
    np.testing.assert_allclose(columns, source.rows(3, 17, 20).numpy().T, rtol=1e-5, atol=1e-5)
    pairs = source.pairs(tf.constant([0, 4, 49]), tf.constant([25, 11, 1]), "float64").numpy()
    exact = oracle.squared_distances(x)[[0, 4, 49], [25, 11, 1]]
    np.testing.assert_allclose(pairs, exact, rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_smallest_any_shape_matches_stable_sort(data):
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 3))
    k, group = data.draw(st.integers(0, 45)), data.draw(st.sampled_from([1, 4, 16]))
    size = rows * columns
    values = data.draw(
        st.lists(st.sampled_from([-1, 0, 1, 2, np.inf]), min_size=size, max_size=size)
    )
    values = np.array(values, np.float32).reshape(rows, columns)
    place, value = graph.smallest(tf.constant(values), k, group)
    expected = np.argsort(values, axis=0, kind="stable")[:k].T
    np.testing.assert_array_equal(place, expected)
    np.testing.assert_array_equal(value, np.take_along_axis(values.T, expected, axis=1))


def by_distance(query, gallery, k):
    """Index and distance of the k nearest rows, in float64; equal distances by index."""
    distances = np.sqrt(squared_of_two(query, gallery))
    index = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(distances, index, axis=1)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("k", [0, 7, 99])
def test_nearest_rows_with_copies_match_oracle_and_arrays(small_blocks, traced, k):
    random = np.random.default_rng(0)
    query, half = (random.integers(3, size=(n, 4)).astype("float32") for n in (10, 20))
    gallery = np.concatenate([half, -half])  # of mean 0, so that equal distances stay equal
    nearest = tf.function(graph.nearest_rows, autograph=False) if traced else graph.nearest_rows
    index, distance = nearest(tf.constant(query), tf.constant(gallery), k)
    expected = by_distance(query, gallery, k)
    np.testing.assert_array_equal(index, expected[0])
    np.testing.assert_allclose(distance, expected[1], atol=1e-6)
    rows = arrays.feature_rows(query, gallery).matrix()
    np.testing.assert_allclose(distance, np.sort(rows, axis=1)[:, :k], atol=1e-6)


def test_nearest_rows_not_finite_are_infinitely_far():
    query, gallery = points(6, seed=1), points(30)
    query[2, 0], gallery[[4, 9], 3] = (
        np.nan,
        np.inf,
    )
    index, distance = (x.numpy() for x in graph.nearest_rows(query, gallery, 30))
    fewer = graph.nearest_rows(query, gallery, 27)[0].numpy()
    np.testing.assert_array_equal(np.delete(fewer, 2, 0), np.delete(index[:, :27], 2, 0))
    assert np.isinf(distance[2]).all()
    others, finite = np.delete(np.arange(6), 2), np.delete(np.arange(30), [4, 9])
    expected = by_distance(query[others], gallery[finite], 28)
    np.testing.assert_array_equal(index[others, :28], finite[expected[0]])
    np.testing.assert_allclose(distance[others, :28], expected[1], rtol=1e-4, atol=1e-4)
    assert np.isinf(distance[others, 28:]).all()


@pytest.mark.parametrize("kept", [False, True])
def test_nearest_in_block_matches_oracle(kept):
    query, block = points(6, seed=1)[2:], points(30)
    norms = (block**2).sum(axis=1)
    allowed = np.arange(30) % 2 == 0 if kept else np.ones(30, bool)
    norms = np.where(allowed, norms, np.inf).astype("float32")
    places, values = arrays.nearest_in_block(query, block, norms, 5, 4)
    rows = np.flatnonzero(allowed)
    expected = by_distance(query, block[rows], 5)
    np.testing.assert_array_equal(np.sort(places), np.sort(rows[expected[0]]))
    lengths = (query.astype(float) ** 2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(values + lengths, expected[1] ** 2, rtol=1e-4, atol=1e-3)
    directions = arrays.unit(block[np.arange(30) != 1])
    places, _ = arrays.nearest_in_block(query, directions, None, 1, 4)
    np.testing.assert_array_equal(places, by_distance(query, directions, 1)[0])


def test_nearest_in_block_equal_rows_returns_the_first():
    block = np.repeat(np.eye(2, dtype=np.float32), 8, axis=0)
    places, _ = arrays.nearest_in_block(block[:1], block, None, 3, 2)
    np.testing.assert_array_equal(places, [[0, 1, 2]])


def test_unit_of_arrays_and_tensors_agree():
    x = points(12) * np.float32(10.0) ** np.arange(-30, 30, 5)[:, None]
    expected = (
        x.astype(float)
        / np.where(x.any(axis=1), np.linalg.norm(x.astype(float), axis=1), 1)[:, None]
    )
    for unit in (arrays.unit, graph.unit):
        np.testing.assert_allclose(unit(x), expected, atol=1e-6)


def test_matrix_in_graph_equals_rows():
    values = np.random.default_rng(0).normal(size=(9, 5)).astype("float32")
    rows = arrays.Rows((9, 5), lambda start, stop: tf.constant(values)[start:stop])
    np.testing.assert_array_equal(tf.function(lambda: graph.matrix(rows))(), values)
    np.testing.assert_array_equal(rows.matrix(), values)
    assert rows.rows(4, 99).flags.writeable
