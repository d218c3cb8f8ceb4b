"""Re-ranking: published values, a float64 oracle, invariances, ties and bad input."""

import functools
import inspect
import re

import numpy as np
import oracle_reranking as oracle
import pytest
import tensorflow as tf
from catalogue import RERANKERS
from conftest import ROOT

from keras_reid import evaluation, reranking
from keras_reid.errors import InputError
from keras_reid.nearest import arrays, graph
from keras_reid.reranking import jaccard, neighbor_graphs, neighbors

POINTS = np.array([[0], [1], [3], [7], [8], [15]], np.float32)


@pytest.fixture
def eagerly():
    """Run without tracing, which takes a second per shape. Graphs have tests of their own."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


EAGERLY = pytest.mark.usefixtures("eagerly")


def people(q=20, g=120, d=16, seed=0, spread=0.5):
    """Features of about eight images for each of some persons: (q, d), (g, d)."""
    random = np.random.default_rng(seed)
    persons = random.normal(size=(max(2, (q + g) // 8), d))
    x = persons[random.integers(len(persons), size=q + g)] + spread * random.normal(size=(q + g, d))
    return np.split(x.astype("float32"), [q])


def blocks(query, gallery):
    """Distances (q, q), (q, g), (g, g) in float64."""
    d = np.sqrt(oracle.squared_distances(np.concatenate([query, gallery])))
    q = len(query)
    return d[:q, :q], d[:q, q:], d[q:, q:]


def every_way(query, gallery, **options):
    """The three forms of the call, which must agree."""
    yield reranking.k_reciprocal(query, gallery, **options)
    yield reranking.RERANKERS["k_reciprocal"](query, gallery, **options).matrix()
    yield reranking.k_reciprocal_from_distances(*blocks(query, gallery), **options).numpy()


@EAGERLY
def test_k_reciprocal_small_points_returns_expected_values():
    def first_row(**options):
        return reranking.k_reciprocal(POINTS[:2], POINTS[2:], k1=2, **options)[0]

    row = [0.03731250860920151, 0.7653333333333333, 0.7853333333333333, 1]
    np.testing.assert_allclose(first_row(k2=1), row, atol=1e-6)
    assert first_row(k2=2)[0] == pytest.approx(0.02477171290923257, abs=1e-6)
    row = [0.04, 0.21777777, 0.28444444, 1]
    np.testing.assert_allclose(first_row(k2=1, lambda_value=1.0), row, atol=1e-6)


SETTINGS = [
    {},
    {"k1": 5, "k2": 2},  # half of 5 is 2, to even
    {"k1": 3, "k2": 2},
    {"k1": 7, "k2": 3},
    {"k1": 11, "k2": 4, "lambda_value": 0.5},
    {"k1": 6, "k2": 1},
    {"k1": 1, "k2": 1, "lambda_value": 0.0},
    {"k1": 2, "k2": 9, "lambda_value": 1.0},
    {"k1": 30, "k2": 6, "lambda_value": 0.0},
]


@EAGERLY
@pytest.mark.first(2)
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_k_reciprocal_every_setting_matches_oracle(options):
    query, gallery = people()
    expected = oracle.k_reciprocal(query, gallery, **options)
    for result in every_way(query, gallery, **options):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=5e-6)


@EAGERLY
@pytest.mark.first(2)
@pytest.mark.parametrize(("q", "g"), [(1, 60), (5, 7), (1, 1), (30, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_k_reciprocal_few_images_matches_oracle(q, g, seed):
    query, gallery = people(q, g, d=4, seed=seed)
    expected = oracle.k_reciprocal(query, gallery)
    for result in every_way(query, gallery):
        np.testing.assert_allclose(result, expected, atol=5e-6)


def test_rerankers_short_names_are_resolved():
    assert reranking.full_name("aqe") == "average_query_expansion"
    assert reranking.full_name("alpha_qe") == "alpha_query_expansion"
    assert reranking.full_name("ecn") == "ecn"
    assert not {*reranking.ALIASES} & {*reranking.RERANKERS}


@EAGERLY
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", RERANKERS)
def test_rerankers_matrix_and_rows_match_oracle(name, seed):
    case = RERANKERS[name]
    for options in case.settings:
        query, gallery = people(12, 70, seed=seed)
        made = reranking.RERANKERS[name](query, gallery, **case.converged, **options)
        assert made.shape == (12, 70)
        result, expected = made.matrix(), case.truth(query, gallery, **options)
        np.testing.assert_allclose(result, expected, atol=2e-5 * max(1, abs(expected).max()))
        np.testing.assert_array_equal(made.rows(3, 7), result[3:7])


@EAGERLY
@pytest.mark.first(2)
@pytest.mark.parametrize("name", RERANKERS)
def test_public_functions_match_rerankers_of_same_name(name):
    query, gallery = people(5, 40)
    result = getattr(reranking, name)(query, gallery)
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, reranking.RERANKERS[name](query, gallery).matrix())


def test_public_functions_have_no_argument_progress():
    for name in RERANKERS:
        assert "progress" not in inspect.signature(getattr(reranking, name)).parameters


@pytest.mark.parametrize("name", RERANKERS)
def test_rerankers_gallery_order_does_not_change_result(name):
    query, gallery = people(8, 50)
    order = np.random.default_rng(0).permutation(50)
    first, second = (
        reranking.RERANKERS[name](query, g).matrix() for g in (gallery, gallery[order])
    )
    np.testing.assert_allclose(first[:, order], second, atol=1e-4 * max(1, abs(first).max()))


@pytest.mark.parametrize("name", RERANKERS)
def test_rerankers_feature_scale_does_not_change_result(name):
    query, gallery = people(8, 50)
    first, second = (reranking.RERANKERS[name](s * query, s * gallery).matrix() for s in (1, 64.0))
    np.testing.assert_allclose(first, second, atol=1e-5 * max(1, abs(first).max()))


@pytest.mark.parametrize("name", ["ecn", "diffusion"])
def test_ecn_and_diffusion_swapped_sets_transpose_result(name):
    query, gallery = people(8, 50)
    options = RERANKERS[name].converged
    there = reranking.RERANKERS[name](query, gallery, **options).matrix()
    back = reranking.RERANKERS[name](gallery, query, **options).matrix()
    np.testing.assert_allclose(there, back.T, atol=1e-5 * max(1, abs(there).max()))


@pytest.mark.nightly
def test_k_reciprocal_lambda_value_mixes_linearly():
    query, gallery = people()
    none, half, whole = (
        reranking.k_reciprocal(query, gallery, lambda_value=value) for value in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(half, (none + whole) / 2, atol=1e-6)
    assert none.min() >= 0
    assert none.max() <= 1
    np.testing.assert_array_equal(np.argsort(whole), np.argsort(blocks(query, gallery)[1]))


def test_jaccard_reciprocal_is_symmetric():
    order = np.array(oracle.order(oracle.squared_distances(people()[1]))[:, :9], np.int32)
    near = jaccard.reciprocal(tf.constant(order)).numpy()
    pairs = {(i, j) for i, row in enumerate(order) for j in row[near[i]]}
    assert pairs == {(j, i) for i, j in pairs}
    assert {(i, i) for i in range(len(order))} <= pairs


def test_query_expansion_and_gnn_neutral_settings_equal_cosine():
    query, gallery = people()
    cosine = oracle.unit(query) @ oracle.unit(gallery).T
    np.testing.assert_allclose(
        reranking.query_expansion(query, gallery, k=1, alpha=3.0), 2 - 2 * cosine, atol=1e-5
    )
    np.testing.assert_allclose(
        reranking.gnn(query, gallery, lambda_value=1.0), 1 - cosine, atol=1e-5
    )
    assert reranking.diffusion(query, gallery).max() <= 0


@pytest.mark.parametrize("name", RERANKERS)
def test_rerankers_copies_and_zero_vectors_are_finite(name):
    query, gallery = np.ones((3, 4), np.float32), np.ones((40, 4), np.float32)
    assert np.isfinite(reranking.RERANKERS[name](query, gallery).matrix()).all()
    gallery[10:] = np.random.default_rng(0).normal(size=(30, 4))
    gallery[5] = 0
    assert np.isfinite(reranking.RERANKERS[name](query, gallery).matrix()).all()
    zeros = np.zeros((6, 4), np.float32)
    assert np.isfinite(reranking.RERANKERS[name](zeros[:2], zeros[2:]).matrix()).all()


@EAGERLY
@pytest.mark.first(1)
@pytest.mark.parametrize("copies", [2, 5, 30])
def test_nearest_duplicate_rows_are_ordered_by_index(copies):
    random = np.random.default_rng(0)
    x = np.repeat(random.normal(size=(12, 33)).astype("float32"), copies, axis=0)
    x = x[random.permutation(len(x))]
    found = neighbors.nearest(graph.FeatureDistances(tf.constant(x)), 9).index.numpy()
    np.testing.assert_array_equal(found, oracle.order(oracle.squared_distances(x))[:, :9])
    for result in every_way(x[:10], x[10:], k1=6, k2=3):
        np.testing.assert_allclose(
            result, oracle.k_reciprocal(x[:10], x[10:], k1=6, k2=3), atol=5e-6
        )


def test_nearest_distances_below_float32_rounding_match_oracle():
    """Distances that differ by less than the rounding of ‖x‖² + ‖y‖² − 2x·y are told apart."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 64))
    near = random.normal(size=(30, 64))
    x[:30] += 8
    x[30:60] = x[:30] + 1e-4 * near
    x[60:90] = x[:30] - 1.0001e-4 * near
    x = x.astype("float32")
    source = graph.FeatureDistances(tf.constant(x))
    found = neighbors.nearest(source, 4).index.numpy()
    expected = oracle.order(oracle.squared_distances(x))[:, :4]
    np.testing.assert_array_equal(found, expected)
    products = np.argsort(source.rows(0, 300).numpy()[:, :300], axis=1, kind="stable")[:, :4]
    assert (products != expected).any()  # or the test would prove nothing


@EAGERLY
@pytest.mark.parametrize(
    ("order", "rows"), [("mixed", 16), ("by person", 64)]
)  # a block has fewer rows, and more, than candidates are kept of each image
def test_nearest_small_blocks_match_oracle(monkeypatch, order, rows):
    monkeypatch.setattr(neighbors, "LEAST", rows)
    random = np.random.default_rng(1)
    person = random.integers(3, size=150)
    person = np.sort(person) if order == "by person" else person
    x = 9 * random.normal(size=(3, 8))[person] + random.integers(3, size=(150, 8))  # some are equal
    x = x.astype("float32")
    squared = oracle.squared_distances(x)
    for k in (3, 150):
        source = graph.FeatureDistances(tf.constant(x))
        traced = tf.function(functools.partial(neighbors.nearest, source, k), autograph=False)
        for found in (neighbors.nearest(source, k), traced()):
            np.testing.assert_array_equal(found.index, oracle.order(squared)[:, :k])
            np.testing.assert_allclose(found.largest, squared.max(axis=1), rtol=1e-5)


@EAGERLY
@pytest.mark.parametrize("known", [0, 7, 40])
def test_kept_distances_partial_cache_matches_feature_distances(monkeypatch, known):
    query, gallery = people(40, 100)
    monkeypatch.setattr(neighbors, "LEAST", 16)
    monkeypatch.setattr(graph, "KEPT_ELEMENTS", known * len(gallery))
    x = tf.constant(np.concatenate([query, gallery]))
    source, plain = graph.KeptDistances(x, 40), graph.FeatureDistances(x)
    assert source.kept.shape[1] == known
    for start, stop, first in ((0, 16, 0), (0, 5, 40), (3, 20, 3), (20, 60, 20), (20, 60, 50)):
        expected = plain.rows(start, stop, first)
        np.testing.assert_allclose(source.rows(start, stop, first), expected, atol=1e-5)
    expected = oracle.k_reciprocal(query, gallery)
    np.testing.assert_allclose(reranking.k_reciprocal(query, gallery), expected, atol=5e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_k_reciprocal_memory_mapped_gallery_matches_oracle(monkeypatch, tmp_path, dtype):
    query, gallery = people(40, 100)
    gallery[[3, 50]] = gallery[7]  # copies are sorted by index
    gallery = gallery.astype(dtype)
    monkeypatch.setattr(neighbors, "LEAST", 16)
    monkeypatch.setattr(arrays, "READ_ELEMENTS", 33 * gallery.shape[1])
    monkeypatch.setattr(graph, "PAIR_ELEMENTS", 7 * gallery.shape[1])
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    source = reranking.RERANKERS["k_reciprocal"](query, mapped)
    assert source.mapped
    expected = oracle.k_reciprocal(query, gallery.astype("float32"))
    np.testing.assert_allclose(source.matrix(), expected, atol=5e-6)


def test_k_reciprocal_memory_mapped_gallery_with_nan_raises(monkeypatch, tmp_path):
    query, gallery = people(5, 20)
    gallery[13, 2] = np.nan
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    monkeypatch.setattr(arrays, "READ_ELEMENTS", 8 * gallery.shape[1])
    with pytest.raises(InputError, match="Inf in 1 rows, first row 13"):
        reranking.RERANKERS["k_reciprocal"](query, mapped)


def test_nearest_largest_ignores_padding_columns():
    x = np.random.default_rng(0).normal(size=(37, 5)).astype("float32")
    found = neighbors.nearest(graph.FeatureDistances(tf.constant(x)), 3)
    np.testing.assert_allclose(found.largest, oracle.squared_distances(x).max(axis=1), rtol=1e-5)


@pytest.mark.nightly
def test_k_reciprocal_block_sizes_do_not_change_result(monkeypatch):
    query, gallery = people(40, 200)
    whole = reranking.k_reciprocal(query, gallery)
    for module, name, value in (
        (neighbors, "LEAST", 32),
        (neighbors, "BLOCK_ELEMENTS", 1),
        (graph, "PAIR_ELEMENTS", 100),
        (graph, "KEPT_ELEMENTS", 17 * 200),
        (jaccard, "BLOCK_ELEMENTS", 5000),
        (neighbor_graphs, "PAIR_ELEMENTS", 1000),
    ):
        monkeypatch.setattr(module, name, value)
    made = reranking.RERANKERS["k_reciprocal"](query, gallery)
    np.testing.assert_allclose(made.matrix(), whole, atol=1e-6)
    traced = tf.function(lambda q, g: reranking.k_reciprocal(q, g, k1=19), autograph=False)
    expected = reranking.RERANKERS["k_reciprocal"](query, gallery, k1=19).matrix()
    np.testing.assert_allclose(traced(query, gallery), expected, atol=1e-6)


@pytest.mark.nightly
def test_k_reciprocal_in_saved_model_of_unknown_sizes_matches_oracle(tmp_path):
    class Ranker(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 16]), tf.TensorSpec([None, 16])])
        def rank(self, query, gallery):
            return reranking.k_reciprocal(query, gallery, k1=8, k2=3)

    tf.saved_model.save(Ranker(), str(tmp_path / "ranker"))
    loaded = tf.saved_model.load(str(tmp_path / "ranker"))
    for q, g in ((3, 50), (20, 120)):
        query, gallery = people(q, g)
        result = loaded.rank(tf.constant(query), tf.constant(gallery)).numpy()
        np.testing.assert_allclose(result, oracle.k_reciprocal(query, gallery, 8, 3), atol=5e-6)


def test_k_reciprocal_from_distances_squared_input_gives_same_result():
    query, gallery = people()
    sets = ((query, None), (query, gallery), (gallery, None))
    distances = [evaluation.matrix(*both) for both in sets]
    expected = oracle.k_reciprocal(query, gallery)
    result = reranking.k_reciprocal_from_distances(*distances)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    squares = [d * d for d in distances]
    result = reranking.k_reciprocal_from_distances(*squares, squared=True)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@EAGERLY
@pytest.mark.parametrize("distance", ["local", "global_local"])
def test_k_reciprocal_squares_local_but_not_global_local_distance(distance):
    random = np.random.default_rng(4)
    labels = [evaluation.Labels(random.integers(5, size=n)) for n in (6, 40)]
    query, gallery = (
        {"embedding": random.normal(size=(n, 8)), "local": random.normal(size=(n, 3, 4))}
        for n in (6, 40)
    )
    options = {"k1": 5, "k2": 2, "lambda_value": 0.3}
    reranked = evaluation.compare(query, gallery, distance, "k_reciprocal", **options)
    got = evaluation.rank(reranked, *labels, "no-camera")
    sets = ((query, None), (query, gallery), (gallery, None))
    qq, qg, gg = (evaluation.matrix(*both, distance).astype(np.float64) for both in sets)
    whole = np.block([[qq, qg], [qg.T, gg]])
    squares = whole if distance == "global_local" else whole**2
    expected = oracle.k_reciprocal_of(squares, 6, 5, 2)
    again = evaluation.rank(expected, *labels, "no-camera")
    assert got.mAP == pytest.approx(again.mAP, abs=1e-9)


def test_k_reciprocal_from_distances_non_euclidean_matches_oracle():
    random = np.random.default_rng(0)
    query, gallery = random.normal(size=(6, 4, 8)), random.normal(size=(40, 4, 8))
    qq, qg, gg = (
        evaluation.matrix(*both, "local")
        for both in ((query, None), (query, gallery), (gallery, None))
    )
    result = reranking.k_reciprocal_from_distances(qq, qg, gg, k1=5, k2=2)
    whole = np.block([[qq, qg], [qg.T, gg]]).astype(np.float64) ** 2
    np.testing.assert_allclose(result, oracle.k_reciprocal_of(whole, 6, 5, 2), atol=5e-6)
    options = {"k1": 5, "k2": 2}
    labels = [evaluation.Labels(random.integers(4, size=n)) for n in (6, 40)]
    reranked = evaluation.compare(query, gallery, "local", "k_reciprocal", **options)
    first = evaluation.rank(reranked, *labels, "no-camera")
    second = evaluation.rank(result.numpy(), *labels, "no-camera")
    assert first.mAP == pytest.approx(second.mAP, abs=1e-9)


@EAGERLY
def test_k_reciprocal_from_distances_ties_are_ordered_by_index():
    d = np.random.default_rng(0).integers(1, 30, size=(100, 100)).astype(float)
    d = np.triu(d, 1) + np.triu(d, 1).T
    result = reranking.k_reciprocal_from_distances(d[:9, :9], d[:9, 9:], d[9:, 9:], k1=8, k2=3)
    np.testing.assert_allclose(result, oracle.k_reciprocal_of(d**2, 9, 8, 3), atol=5e-6)


def test_sparse_jaccard_within_returns_near_entries():
    x = np.concatenate(people(0, 150))
    sparse = reranking.SparseJaccard(x, k1=8, k2=3)
    squared = oracle.squared_distances(x)
    scaled = squared / squared.max(axis=1, keepdims=True)
    expected = oracle.jaccard(oracle.encodings(scaled, oracle.order(squared), 8, 3), range(150))
    np.testing.assert_allclose(sparse.rows(0, 150), expected, atol=5e-6)
    within = sparse.within(0.6)
    dense = np.full((150, 150), np.inf)
    for i in range(150):
        columns = slice(within.indptr[i], within.indptr[i + 1])
        dense[i, within.indices[columns]] = within.data[columns]
    near = expected <= 0.6
    assert near.sum() > 150
    np.testing.assert_array_equal(np.isfinite(dense), near)
    np.testing.assert_allclose(dense[near], expected[near], atol=5e-6)
    assert (within.diagonal() == 0).all()


def test_sparse_jaccard_progress_reaches_total():
    told = []
    reranking.SparseJaccard(people()[1], progress=lambda *done: told.append(done))
    assert told[-1] == (120, 120)


QUERY, GALLERY = people(4, 20, d=4)
BROKEN = GALLERY.copy()
BROKEN[3, 1] = np.nan


@pytest.mark.parametrize("name", RERANKERS)
@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        (QUERY, BROKEN, "`gallery` features must be finite .* 1 rows, first row 3"),
        (QUERY * np.float32(np.inf), GALLERY, "`query` features must be finite .* 4 rows"),
        (QUERY, GALLERY[:, :3], r"same width .* got \(4, 4\) and \(20, 3\)"),
        (QUERY[:0], GALLERY, "at least one row"),
        (QUERY, GALLERY[:0], "at least one row"),
        (QUERY[0], GALLERY, r"`query features` must be a 2-D array .* got float32 \(4,\)"),
        ([["a"] * 4], GALLERY, "of real numbers"),
        ([[1], [1, 2]], GALLERY, "of real numbers"),
    ],
)
def test_rerankers_invalid_features_raises(name, query, gallery, message):
    with pytest.raises(InputError, match=message):
        reranking.RERANKERS[name](query, gallery)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("k_reciprocal", {"k1": 0}, "`k1` must be an integer of at least 1, got 0"),
        ("k_reciprocal", {"k2": 1.5}, "`k2` must be an integer .* got 1.5"),
        ("k_reciprocal", {"lambda_value": 1.1}, r"`lambda_value` must be in \[0, 1\], got 1.1"),
        ("average_query_expansion", {"k": 0}, "`k` must be an integer"),
        ("average_query_expansion", {"alpha": -1}, "`alpha` must be at least 0, got -1"),
        ("ecn", {"t": 0}, "`t` must be an integer"),
        ("gnn", {"rounds": -1}, "`rounds` must be an integer of at least 0"),
        ("gnn", {"lambda_value": -0.1}, r"`lambda_value` must be in"),
        ("diffusion", {"alpha": 1.0}, r"`alpha` must be in \(0, 1\)"),
        ("diffusion", {"iterations": 0}, "`iterations` must be an integer"),
    ],
)
def test_rerankers_invalid_options_raises(name, options, message):
    with pytest.raises(InputError, match=message):
        reranking.RERANKERS[name](QUERY, GALLERY, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: np.ones((3, 3))}, r"\(g, g\), got \(3, 3\), \(4, 20\) and \(20, 20\)"),
        ({2: np.ones((20, 19))}, r"got \(4, 4\), \(4, 20\) and \(20, 19\)"),
        ({1: -np.ones((4, 20))}, "`qg` must hold finite distances of at least 0, got -1"),
        ({2: np.full((20, 20), np.nan)}, "`gg` must hold finite distances"),
    ],
)
def test_k_reciprocal_from_distances_invalid_blocks_raises(change, message):
    given = list(blocks(QUERY, GALLERY))
    for i, block in change.items():
        given[i] = block
    with pytest.raises(InputError, match=message):
        reranking.k_reciprocal_from_distances(*given)


def test_sparse_jaccard_within_invalid_threshold_raises():
    with pytest.raises(InputError, match=r"in \[0, 1\), got 1"):
        reranking.SparseJaccard(GALLERY).within(1)


def test_reranking_docs_python_example_runs():
    text = (ROOT / "docs/reranking.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["distances"].shape == (20, 90)
    assert "k_reciprocal(k1=10)" in str(names["result"])


@functools.cache
def public_model(root):
    stored = np.load(root / "data/features/market-retail0288.npz")
    sides = (evaluation.Labels(stored[f"{side}p"], stored[f"{side}c"]) for side in "qg")
    return (stored["q"], stored["g"]), *sides


@pytest.mark.slow
@pytest.mark.real
def test_k_reciprocal_public_features_matches_published_scores(real_data):
    """The authors' own Python code gave 88.989 and 84.228."""
    features, *labels = public_model(real_data)
    reranked = evaluation.compare(*features, reranking="k_reciprocal")
    result = evaluation.rank(reranked, *labels)
    assert result.protocol.reranking == "k_reciprocal"
    assert 100 * result.rank(1) == pytest.approx(88.989, abs=0.01)
    assert 100 * result.mAP == pytest.approx(84.228, abs=0.01)
    whole = reranking.k_reciprocal(*features)
    assert evaluation.rank(whole, *labels).mAP == pytest.approx(result.mAP, abs=1e-6)


@pytest.mark.slow
def test_k_reciprocal_market1501_size_sampled_rows_match_loops():
    q, g = 3368, 15913
    random = np.random.default_rng(0)
    persons = random.normal(size=(751, 64))
    x = persons[random.integers(751, size=q + g)] + 1.2 * random.normal(size=(q + g, 64))
    x = x.astype("float32")
    made = reranking.RERANKERS["k_reciprocal"](x[:q], x[q:])
    x = x.astype(np.float64)
    norms = (x * x).sum(axis=1)
    rank = np.empty((q + g, 21), int)
    largest = np.empty(q + g)
    for start in range(0, q + g, 1000):
        squared = norms[start : start + 1000, None] + norms - 2 * x[start : start + 1000] @ x.T
        own = np.arange(len(squared))
        largest[start : start + 1000] = squared.max(axis=1)
        squared[own, start + own] = -1
        near = np.argpartition(squared, 21, axis=1)[:, :21]
        near = np.take_along_axis(near, np.argsort(np.take_along_axis(squared, near, 1)), 1)
        rank[start : start + 1000] = near
    encoded = []
    for i in range(q + g):
        members = oracle.expanded(rank, i, 20)
        weight = np.exp(-((x[members] - x[i]) ** 2).sum(axis=1) / largest[i])
        encoded.append(dict(zip(members, weight / weight.sum(), strict=True)))
    v = []
    for near in rank[:, :6]:
        row = {}
        for j in near:
            for column, value in encoded[j].items():
                row[column] = row.get(column, 0) + value / 6
        v.append(row)
    listed = [[] for _ in range(q + g)]
    for i in range(q, q + g):
        for column, value in v[i].items():
            listed[column].append((i - q, value))
    for i in random.choice(q, 200, replace=False):
        shared = np.zeros(g)
        for column, value in v[i].items():
            for j, other in listed[column]:
                shared[j] += min(value, other)
        original = ((x[q:] - x[i]) ** 2).sum(axis=1) / largest[i]
        expected = 0.7 * (1 - shared / (2 - shared)) + 0.3 * original
        np.testing.assert_allclose(made.rows(i, i + 1)[0], expected, atol=1e-5)


# --- Inside a tf.function


def in_graph(name, **options):
    spec = tf.TensorSpec((None, 8), tf.float32)
    return tf.function(
        lambda query, gallery: reranking.IN_GRAPH[name](query, gallery, **options),
        input_signature=[spec, spec],
        autograph=False,
    )


def test_in_graph_rerankers_include_all_but_diffusion():
    assert {*reranking.IN_GRAPH} == {*reranking.RERANKERS} - {"diffusion"}
    query, gallery = people(3, 20, d=8)
    with pytest.raises(InputError, match=r"outside of a tf\.function"):
        tf.function(reranking.diffusion, autograph=False)(query, gallery)


@pytest.mark.first(2)
@pytest.mark.parametrize("name", reranking.IN_GRAPH)
def test_in_graph_rerankers_unknown_sizes_match_eager(name):
    rerank = in_graph(name)
    for sizes in ((8, 50), (1, 30), (5, 1), (1, 1)):
        query, gallery = people(*sizes, d=8)
        got = rerank(query, gallery).numpy()
        assert got.shape == sizes
        np.testing.assert_allclose(
            got, reranking.RERANKERS[name](query, gallery).matrix(), atol=1e-5
        )


@pytest.mark.first(2)
@pytest.mark.parametrize("name", reranking.IN_GRAPH)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_in_graph_rerankers_non_finite_rows_return_inf(name, bad):
    query, gallery = people(8, 50, d=8)
    rerank = in_graph(name)
    expected = rerank(np.delete(query, 2, axis=0), np.delete(gallery, (0, 49), axis=0)).numpy()
    query[2, 3] = gallery[0] = gallery[49, 0] = bad
    got = rerank(query, gallery).numpy()
    assert np.isposinf(got[2]).all()
    assert np.isposinf(got[:, [0, 49]]).all()
    good = np.delete(np.delete(got, 2, axis=0), (0, 49), axis=1)
    np.testing.assert_allclose(good, expected, atol=1e-6)
    for q, g in ((query * bad, gallery), (query, gallery * bad)):
        assert np.isposinf(rerank(q, g)).all()
