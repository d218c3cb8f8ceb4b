"""Ranking by aligned stripes, alone and combined with global features."""

import numpy as np
import oracle_alignment
import pytest

from keras_reid import evaluation
from keras_reid.errors import InputError
from keras_reid.evaluation import Labels, compare, local, matrix_rows
from keras_reid.nearest import arrays


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def stripes(n, s=4, d=6, seed=0):
    return unit(np.random.default_rng(seed).normal(size=(n, s, d))).astype("float32")


def both(n, s=4, d=6, seed=0):
    embedding = np.random.default_rng(seed + 100).normal(size=(n, 8)).astype("float32")
    return {"embedding": embedding, "local": 3 * stripes(n, s, d, seed)}


def rows(query, gallery, distance):
    source = compare(query, gallery, distance)
    return source.rows(0, source.shape[0])


@pytest.mark.parametrize(("s", "t"), [(4, 4), (1, 1), (3, 5), (16, 2)])
def test_local_distance_any_stripe_counts_matches_oracle(s, t):
    query, gallery = stripes(5, s), stripes(7, t, seed=1)
    expected = oracle_alignment.aligned(query, gallery)
    np.testing.assert_allclose(rows(query, gallery, "local"), expected, rtol=1e-5)
    np.testing.assert_allclose(
        rows({"local": query}, {"local": gallery}, "local"), expected, rtol=1e-5
    )


def test_local_distance_scaled_stripes_are_not_normalized():
    query, gallery = 2 * stripes(3), stripes(4, seed=1) / 2
    expected = oracle_alignment.aligned(query, gallery)
    np.testing.assert_allclose(rows(query, gallery, "local"), expected, rtol=1e-5)


def test_global_local_normalizes_features_and_squares_global_distance():
    query, gallery = both(5), both(7, seed=1)
    apart = unit(query["embedding"])[:, None] - unit(gallery["embedding"])
    expected = (apart**2).sum(-1) + oracle_alignment.aligned(
        unit(query["local"]), unit(gallery["local"])
    )
    np.testing.assert_allclose(rows(query, gallery, "global_local"), expected, rtol=1e-5)


def test_compare_mapping_with_global_distance_uses_embedding():
    query, gallery = both(5), both(7, seed=1)
    for distance in ("euclidean", "cosine"):
        np.testing.assert_array_equal(
            rows(query, gallery, distance),
            rows(query["embedding"], gallery["embedding"], distance),
        )


@pytest.mark.parametrize(("queries", "cells"), [(2, 1), (3, 150), (64, 2**20), (5, 10**4)])
def test_local_distance_block_size_does_not_change_result(monkeypatch, queries, cells):
    query, gallery = stripes(7), stripes(11, 3, seed=1)
    expected = rows(query, gallery, "local")
    monkeypatch.setattr(local, "QUERIES", queries)
    monkeypatch.setattr(local, "CELLS", cells)
    monkeypatch.setattr(local, "STEP", 3)
    np.testing.assert_allclose(rows(query, gallery, "local"), expected, rtol=1e-6)
    source = compare(query, gallery, "local")
    np.testing.assert_allclose(source.rows(2, 6), expected[2:6], rtol=1e-6)
    np.testing.assert_allclose(source.rows(5, 99), expected[5:], rtol=1e-6)


def test_local_distance_duplicate_images_have_exact_distances():
    image = np.repeat(stripes(1, 1, 512), 4, axis=1)
    single = stripes(50, 1, 512, seed=2)
    assert np.all(np.diag(rows(single, single, "local")) == 0), "rounding is no distance"
    others = stripes(5, 4, 512, seed=1)
    assert np.all(rows(image, image, "local") == 0)
    twice = rows(others, np.concatenate([others, others]), "local")
    np.testing.assert_array_equal(twice[:, :5], twice[:, 5:])


def test_local_distance_near_stripes_is_accurate():
    query = stripes(4, 8, 512)
    gallery = unit(query + 5e-4 * stripes(4, 8, 512, seed=1)).astype("float32")
    expected = oracle_alignment.aligned(query, gallery)
    np.testing.assert_allclose(rows(query, gallery, "local"), expected, atol=1.5e-3 * 8)
    far = unit(query + 0.1 * stripes(4, 8, 512, seed=1)).astype("float32")
    np.testing.assert_allclose(
        rows(query, far, "local"), oracle_alignment.aligned(query, far), atol=1e-4
    )


def test_local_distance_memory_mapped_gallery_matches_in_memory(tmp_path):
    np.save(tmp_path / "gallery.npy", stripes(7, seed=1))
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    expected = rows(stripes(5), stripes(7, seed=1), "local")
    np.testing.assert_array_equal(rows(stripes(5), mapped, "local"), expected)


@pytest.mark.parametrize("distance", ["local", "global_local"])
def test_rank_local_features_matches_rank_of_matrix(distance, monkeypatch):
    random = np.random.default_rng(3)
    labels = [Labels(random.integers(3, size=n), random.integers(2, size=n)) for n in (9, 20)]
    query, gallery = both(9), both(20, seed=1)
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", 80)
    result = evaluation.rank(compare(query, gallery, distance), *labels)
    matrix = evaluation.matrix(query, gallery, distance)
    again = evaluation.rank(matrix_rows(matrix, distance), *labels)
    assert result.to_dict() == again.to_dict()
    assert result.protocol.distance == distance


# --- The input of re-ranking


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "local", "global_local"])
def test_matrix_of_two_sets_matches_compare(distance):
    query, gallery = both(5), both(7, seed=1)
    expected = rows(query, gallery, distance)
    result = evaluation.matrix(query, gallery, distance)
    assert result.dtype == "float32"
    np.testing.assert_allclose(result, expected, rtol=1e-6)


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "local", "global_local"])
def test_pairs_distances_equal_matrix_entries(distance):
    query, gallery = both(5), both(7, seed=1)
    labels = Labels(np.arange(5)), Labels(np.arange(7))
    d, same = evaluation.pairs(compare(query, gallery, distance), *labels, "no-camera")
    result = evaluation.matrix(query, gallery, distance)
    np.testing.assert_array_equal(d, result.ravel())
    np.testing.assert_array_equal(same, np.eye(5, 7, dtype=bool).ravel())


def test_matrix_euclidean_and_cosine_returns_expected_values():
    x, y = np.array([[3.0, 4.0]]), np.array([[0.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(evaluation.matrix(x, y), [[5, 13**0.5]], rtol=1e-6)
    np.testing.assert_allclose(evaluation.matrix(x, y, "cosine"), [[1, 0.2]], rtol=1e-6)


@pytest.mark.parametrize("distance", ["euclidean", "local", "global_local"])
def test_matrix_without_gallery_puts_each_image_first(distance):
    """The stripes differ from each other, so the aligned distance to itself is not 0."""
    images = both(20)
    # A plain image is nearer to all others than these are to themselves.
    images["local"][0] = images["local"].mean(axis=(0, 1))
    by_force = evaluation.matrix(images, None, distance)
    assert np.all(np.diag(by_force) == 0)
    np.testing.assert_array_equal(np.argmin(by_force, axis=1), np.arange(20))
    off = ~np.eye(20, dtype=bool)
    np.testing.assert_allclose(
        by_force[off], evaluation.matrix(images, images, distance)[off], rtol=1e-6
    )


def test_matrix_set_against_itself_may_rank_other_image_first():
    striped, plain = [0, 2, 0, 2], [0, 0, 0, 2]  # three steps to itself, two to the plainer one
    images = np.array([striped, plain], "float32")[..., None]
    np.testing.assert_array_equal(
        np.argmin(evaluation.matrix(images, images, "local"), axis=1), [1, 1]
    )
    np.testing.assert_array_equal(
        np.argmin(evaluation.matrix(images, None, "local"), axis=1), [0, 1]
    )


def nan(features):
    features["local"][2, 1, 0] = np.nan
    return features


@pytest.mark.parametrize(
    ("query", "gallery", "distance", "message"),
    [
        (
            {"embedding": np.ones((2, 3))},
            both(3),
            "local",
            "a mapping with 'local', got embed",
        ),
        (
            both(3),
            {"local": stripes(3)},
            "global_local",
            "gallery .* 'embedding', got local",
        ),
        (stripes(3), stripes(3), "global_local", r"2-D .* got float32 \(3, 4, 6\)"),
        (both(3)["embedding"], stripes(3), "local", r"3-D .* got float32 \(3, 8\)"),
        (stripes(3), stripes(3), "euclidean", r"2-D .* got float32 \(3, 4, 6\)"),
        (
            stripes(3),
            stripes(3, d=5),
            "local",
            r"the same size.* got the shapes .* 4, 6\) and .* 4, 5\)",
        ),
        (stripes(3, 0), stripes(3), "local", r"at least 1, got the shapes .* 0, 6\)"),
        (nan(both(3)), both(3), "local", "`query` features must be finite .* 1 rows, first row 2"),
        (both(3), nan(both(3)), "global_local", "`gallery` features .* in 1 rows"),
        (both(3), both(3), "aligned", r"global_local, visible, .*, got 'alig"),
    ],
)
def test_matrix_invalid_features_raises(query, gallery, distance, message):
    with pytest.raises(InputError, match=message):
        evaluation.matrix(query, gallery, distance)
