"""Ranking: published scores, an independent oracle, protocols, blocks and bad input."""

import json
import tracemalloc

import numpy as np
import oracle_ranking
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from keras_reid import distances, evaluation, reranking
from keras_reid.errors import InputError
from keras_reid.evaluation import Labels, Protocol, compare, matrix_rows, rank, ranked_lists
from keras_reid.nearest import arrays

SCORES = ("mAP", "mAP_trapezoid", "mINP")


def one_query(order, gallery_ids, gallery_cams, **options):
    """Rank one query (identity 1, camera 0) against a gallery at these distances."""
    gallery = Labels(gallery_ids, gallery_cams)
    return rank(np.array([order], float), Labels([1], [0]), gallery, **options)


def example(q=40, g=90, d=12, seed=0):
    """Features with structure, and the labels of both sides: arguments for `rank`."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(15, d))
    query_ids, gallery_ids = random.integers(15, size=q), random.integers(-1, 15, size=g)
    query = centers[query_ids] + random.normal(size=(q, d))
    gallery = centers[gallery_ids] + random.normal(size=(g, d))
    cameras = random.integers(4, size=q), random.integers(4, size=g)
    features = query.astype("float32"), gallery.astype("float32")
    return features, Labels(query_ids, cameras[0]), Labels(gallery_ids, cameras[1])


def few_at_a_time(monkeypatch, queries, gallery=90):
    monkeypatch.setattr(arrays, "BLOCK_ELEMENTS", queries * gallery)


def assert_same(first, second):
    np.testing.assert_array_equal(first.cmc, second.cmc)
    assert [getattr(first, s) for s in SCORES] == [getattr(second, s) for s in SCORES]


def test_rank_published_vector_returns_expected_scores():
    result = one_query([0.1, 0.2, 0.3, 0.4, 0.5], [1, 2, 1, 3, 1], [0, 1, 1, 1, 2], max_rank=5)
    np.testing.assert_array_equal(result.cmc, [0, 1, 1, 1, 1])
    assert result.mAP == 0.5
    assert result.mAP_trapezoid == pytest.approx(1 / 3, abs=1e-15)
    assert result.mINP == 0.5


def test_rank_first_place_match_scores_one():
    result = one_query([1, 2], [1, 2], [1, 1])
    assert [result.mAP, result.mAP_trapezoid, result.mINP, result.rank(1)] == [1, 1, 1, 1]


def test_rank_map_matches_scikit_learn():
    random = np.random.default_rng(1)
    matrix = random.permutation(30 * 50).reshape(30, 50).astype(float)
    query_ids, gallery_ids = random.integers(5, size=30), random.integers(5, size=50)
    result = rank(matrix, Labels(query_ids), Labels(gallery_ids), "no-camera")
    pairs = zip(query_ids, matrix, strict=True)
    expected = [average_precision_score(gallery_ids == i, -row) for i, row in pairs]
    assert result.mAP == pytest.approx(np.mean(expected), abs=1e-12)


@st.composite
def cases(draw):
    q, g = draw(st.integers(1, 5)), draw(st.integers(1, 12))

    def column(n, low, high):
        return draw(st.lists(st.integers(low, high), min_size=n, max_size=n))

    levels = draw(st.sampled_from([1, 4, 1000]))  # one value, many ties, few ties
    matrix = np.reshape(column(q * g, 0, levels), (q, g)) / 4
    return matrix, column(q, -1, 3), column(g, -1, 3), column(q, 0, 2), column(g, 0, 2)


@settings(max_examples=300, deadline=None)
@given(
    cases(),
    st.sampled_from(["drop", "zero"]),
    st.sampled_from(["market1501", "no-camera"]),
    st.integers(1, 14),
)
def test_rank_random_cases_match_oracle(case, invalid, protocol, max_rank):
    matrix, query_ids, gallery_ids, *cameras = case
    seen = cameras if protocol == "market1501" else (None, None)
    expected = oracle_ranking.scores(
        matrix, query_ids, gallery_ids, *seen, max_rank=max_rank, zero=invalid == "zero"
    )
    labels = Labels(query_ids, cameras[0]), Labels(gallery_ids, cameras[1])
    arguments = matrix, *labels, Protocol(protocol, invalid=invalid)
    if expected is None:
        with pytest.raises(InputError, match="true match"):
            rank(*arguments, max_rank=max_rank)
        return
    result = rank(*arguments, max_rank=max_rank)
    np.testing.assert_allclose(result.cmc, expected["cmc"], atol=1e-12)
    for score in SCORES:
        assert getattr(result, score) == pytest.approx(expected[score], abs=1e-12)
    assert result.protocol.valid_queries == expected["valid"]
    assert result.protocol.invalid_queries == expected["invalid"]


def test_rank_large_tied_matrix_matches_oracle():
    random = np.random.default_rng(2)
    matrix = random.integers(20, size=(20, 300)).astype("float32")
    labels = [random.integers(4, size=n) for n in (20, 300, 20, 300)]
    expected = oracle_ranking.scores(matrix, *labels, max_rank=10, zero=False)
    result = rank(matrix, Labels(*labels[::2]), Labels(*labels[1::2]), max_rank=10)
    np.testing.assert_allclose(result.cmc, expected["cmc"], atol=1e-12)
    for score in SCORES:
        assert getattr(result, score) == pytest.approx(expected[score], abs=1e-12)


@pytest.mark.parametrize(
    ("nearest_id", "nearest_cam", "rank1"),
    [(1, 0, 1.0), (-1, 1, 1.0), (2, 0, 0.0), (0, 1, 0.0)],
    ids=["own camera is junk", "-1 is junk", "other in own camera stays", "distractor stays"],
)
def test_rank_nearest_junk_is_ignored_and_distractor_counts(nearest_id, nearest_cam, rank1):
    assert one_query([1, 2], [nearest_id, 1], [nearest_cam, 1]).rank(1) == rank1


def test_rank_no_camera_protocol_keeps_same_camera_matches():
    result = one_query([1, 2], [1, 2], [0, 1], protocol="no-camera")
    assert result.rank(1) == 1
    assert "identity -1 only" in result.protocol.junk


def test_rank_gallery_size_excludes_junk():
    assert one_query([1, 2, 3], [-1, 1, 0], [1, 1, 1]).protocol.gallery_size == 2


@pytest.mark.parametrize(("invalid", "score"), [("drop", 1.0), ("zero", 0.5)])
def test_rank_queries_without_match_are_dropped_or_zero(invalid, score):
    matrix = np.array([[1.0, 2.0], [1.0, 2.0]])
    protocol = Protocol(invalid=invalid)
    result = rank(matrix, Labels([1, 9], [0, 0]), Labels([1, 2], [1, 1]), protocol)
    assert [getattr(result, s) for s in SCORES] == [score] * 3
    assert result.rank(1) == score
    assert (result.protocol.valid_queries, result.protocol.invalid_queries) == (1, 1)
    assert result.protocol.invalid == invalid


def test_rank_query_identity_minus_one_is_invalid():
    result = rank(np.ones((2, 2)), Labels([-1, 1], [0, 0]), Labels([-1, 1], [1, 1]))
    assert result.protocol.invalid_queries == 1


@pytest.mark.parametrize(("gallery_ids", "rank1"), [([1, 2], 1.0), ([2, 1], 0.0)])
def test_rank_ties_are_ordered_by_gallery_index(gallery_ids, rank1):
    assert one_query([3, 3], gallery_ids, [1, 1]).rank(1) == rank1


def test_rank_cmc_beyond_gallery_size_is_constant():
    assert one_query([1, 2], [2, 1], [1, 1], max_rank=6).cmc.tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("block", [1, 7, 40, 1000])
def test_rank_block_size_does_not_change_result(block, monkeypatch):
    features, *labels = example()
    matrix = np.array(distances.euclidean(*features))
    whole = rank(matrix, *labels), rank(features, *labels)
    few_at_a_time(monkeypatch, block)
    assert_same(rank(matrix, *labels), whole[0])
    assert_same(rank(features, *labels), whole[1])


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
@pytest.mark.parametrize("convert", [np.asarray, tf.constant], ids=["numpy", "tensor"])
def test_rank_features_matches_rank_of_distances(name, convert):
    features, *labels = example()
    matrix = np.asarray(distances.get(name)(*features))
    result = rank(compare(*map(convert, features), name), *labels)
    assert_same(result, rank(matrix, *labels))
    assert result.protocol.distance == name


def test_compare_near_duplicates_far_from_origin_is_exact():
    random = np.random.default_rng(3)
    query = (1000 + random.normal(size=(6, 32))).astype("float32")
    steps = np.array([0, 1e-3, 1e-2, 1e-1, 1])[:, None]
    gallery = np.concatenate([query[:1] + steps, query]).astype("float32")
    exact = np.linalg.norm(query[:, None].astype(float) - gallery, axis=-1)
    found = compare(query, gallery).rows(0, 6)
    np.testing.assert_allclose(found, exact, rtol=1e-3)
    assert np.all(found[np.arange(6), 5 + np.arange(6)] == 0)


def test_compare_common_offset_keeps_precision():
    random = np.random.default_rng(5)
    query, gallery = (20 + random.normal(size=(n, 64)).astype("float32") for n in (30, 40))
    exact = np.linalg.norm(query[:, None].astype(float) - gallery, axis=-1)
    np.testing.assert_allclose(compare(query, gallery).rows(0, 30), exact, rtol=2.5e-6)


def test_compare_cosine_zero_vectors_have_distance_one():
    query, gallery = np.float32([[0, 0], [2, 0]]), np.float32([[0, 0], [3, 0], [-1, 0], [0, 1]])
    source = compare(query, gallery, "cosine")
    expected = np.array([[1, 1, 1, 1], [1, 0, 2, 1]])
    np.testing.assert_allclose(source.rows(0, 2), expected, atol=1e-6)
    np.testing.assert_allclose(source.rows(1, 2), expected[1:], atol=1e-6)


def test_compare_cosine_ignores_vector_length():
    (query, gallery), *labels = example()
    scale = np.float32(10.0) ** np.arange(-20, 20)
    scaled = rank(compare(query * scale[:, None], gallery * 1e20, "cosine"), *labels)
    plain = rank(compare(query, gallery, "cosine"), *labels)
    assert scaled.mAP == pytest.approx(plain.mAP)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "uint8"])
def test_rank_matrix_dtype_does_not_change_result(dtype):
    _, *labels = example()
    matrix = np.random.default_rng(4).integers(200, size=(40, 90))
    assert_same(rank(matrix.astype(dtype), *labels), rank(matrix.astype("float32"), *labels))


def test_rank_memory_mapped_matrix_matches_in_memory(tmp_path, monkeypatch):
    features, *labels = example()
    matrix = np.array(distances.euclidean(*features))
    np.save(tmp_path / "d.npy", matrix)
    mapped = np.load(tmp_path / "d.npy", mmap_mode="r")
    before = matrix.copy()
    whole = rank(matrix, *labels)
    few_at_a_time(monkeypatch, 7)
    assert_same(rank(mapped, *labels), whole)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("kind", ["str", "bytes", "object", "tensor"])
def test_rank_string_labels_match_integer_labels(kind):
    features, *labels = example()
    convert = {
        "str": lambda c: c.astype(str).tolist(),
        "bytes": lambda c: c.astype("S8"),
        "object": lambda c: c.astype(str).astype(object),
        "tensor": lambda c: tf.constant(c.astype("S8")),
    }[kind]
    converted = [Labels(*map(convert, side)) for side in labels]
    assert_same(rank(features, *converted), rank(features, *labels))


def test_rank_features_uses_less_memory_than_matrix(monkeypatch):
    q, g = 1500, 3000
    features, *labels = example(q, g)
    few_at_a_time(monkeypatch, 50, g)
    tracemalloc.start()
    rank(features, *labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < q * g * 4 / 2


def test_rank_result_serializes_scores_and_protocol():
    features, *labels = example()
    reranked = compare(*features, reranking="k_reciprocal")
    result = rank(reranked, *labels, Protocol(dataset="toy"), max_rank=10)
    stored = json.loads(json.dumps(result.to_dict()))
    assert stored == result.to_dict()
    assert stored["mAP"] == result.mAP
    assert 0 < result.mAP < 1
    assert stored["cmc"][4] == result.rank(5)
    assert stored["protocol"]["dataset"] == "toy"
    table = str(result)
    for text in (
        f"rank-1                {100 * result.rank(1):.2f} %",
        f"mAP (rank precision)  {100 * result.mAP:.2f} %",
        f"{result.protocol.valid_queries} valid",
        "(dropped)",
        "toy",
        "k_reciprocal",
        "euclidean",
        "same identity in the same camera",
    ):
        assert text in table
    assert "rank-20" not in table


@pytest.mark.parametrize("k", [0, 11])
def test_result_rank_outside_cmc_raises(k):
    features, *labels = example()
    with pytest.raises(InputError, match=rf"`k` must be in \[1, 10\], got {k}"):
        rank(features, *labels, max_rank=10).rank(k)


GOOD = {
    "distances": np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]),
    "query": Labels([1, 2], [0, 0]),
    "gallery": Labels([1, 2, 3], [1, 1, 1]),
}
PAIR = (np.ones((2, 4)), np.ones((3, 4)))
NAN = (np.ones((2, 4)), np.array([[1.0] * 4, [1.0] * 4, [1.0, 1.0, np.nan, 1.0]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": np.array([[1, 2, 3], [1, np.nan, 3]])}, "nan between query 1 and .* 1"),
        ({"distances": np.array([[1, 2, np.inf], [1, 2, 3]])}, "inf between query 0 and .* 2"),
        ({"distances": NAN}, "`gallery` features must be finite .* 1 rows, first row 2"),
        (
            {"distances": (np.full((2, 4), 1e300), PAIR[1])},
            "`query` .* float32.* 2 rows",
        ),
        ({"distances": (np.eye(2, 4) * 1e30, PAIR[1])}, "too large to square in float32"),
        ({"distances": np.ones(3)}, r"`distances` must be a 2-D array .* got float64 \(3,\)"),
        ({"distances": np.ones((2, 3), complex)}, "real numbers.*complex128"),
        ({"distances": [["a", "b", "c"]] * 2}, "array of real numbers"),
        ({"distances": [np.ones((2, 4)), np.ones((3, 4))]}, "got a list"),
        ({"distances": (PAIR[0], np.ones((3, 5)))}, r"of the same size.*, 4\) and \(3, 5\)"),
        (
            {"distances": (np.ones((2, 0)), np.ones((3, 0)))},
            r"at least 1, .* \(2, 0\) and",
        ),
        ({"distances": (PAIR[0], np.ones(3))}, "`gallery features` must be a 2-D array"),
        ({"distances": np.ones((2, 0))}, r"`gallery identities` .*\(0,\), got int64 \(3,\)"),
        ({"distances": np.ones((0, 3))}, r"`query identities` .*\(0,\), got int64 \(2,\)"),
        ({"query": Labels([1], [0, 0])}, r"`query identities` .*\(2,\), got int64 \(1,\)"),
        ({"gallery": Labels([1, 2], [1] * 3)}, r"`gallery identities` .*\(3,\), got int64 \(2,\)"),
        ({"query": Labels([1, 2], [0])}, r"`query cameras` .*\(2,\), got int64 \(1,\)"),
        ({"gallery": Labels([1, 2, 3], [0] * 4)}, r"`gallery cameras` .*\(3,\), got int64 \(4,\)"),
        ({"query": Labels([1.5, 2.5], [0, 0])}, "integers or strings .*, got float64"),
        ({"gallery": Labels([[1, 2, 3]], [1] * 3)}, r"got int64 \(1, 3\)"),
        (
            {"gallery": Labels([[1], [2, 3], []], [1] * 3)},
            "`gallery identities` must be integers",
        ),
        (
            {"query": Labels(["1", "2"], [0, 0])},
            "the same type, integers or strings, got <U1 and int64",
        ),
        ({"query": Labels([1, 2])}, "needs query cameras, got none.*'no-camera'"),
        ({"gallery": Labels([1, 2, 3])}, "needs gallery cameras"),
        ({"protocol": "cuhk"}, "`protocol` must be one of market1501, .*all-vs-all, got 'cuhk'"),
        ({"protocol": "all-vs-all"}, "must be one set, but they differ"),
        (
            {"protocol": "viper", "distances": compare(*PAIR, reranking="ecn")},
            "`reranking` must be none for protocol 'viper', got 'ecn'",
        ),
        (
            {"protocol": "all-vs-all", "distances": compare(*PAIR, reranking="ecn")},
            "none for protocol 'all-vs-all'",
        ),
        ({"max_rank": 0}, "`max_rank` must be at least 1, got 0"),
        ({"gallery": Labels([3, 4, 5], [1] * 3)}, "true match .*, got 2 queries"),
        (
            {"gallery": Labels([3, 4, 5], [1] * 3), "protocol": Protocol(invalid="zero")},
            "true match after the junk rule",
        ),
    ],
)
def test_rank_invalid_input_raises(change, message):
    with pytest.raises(InputError, match=message):
        rank(**{**GOOD, **change})


def test_rank_nan_in_later_block_raises_with_row(monkeypatch):
    few_at_a_time(monkeypatch, 1, 3)
    with pytest.raises(InputError, match=r"nan between query 1 and .* 1"):
        rank(**{**GOOD, "distances": np.array([[1, 2, 3], [1, np.nan, 3]])})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Protocol(ties="lucky"), "`ties` must be one of index, .*, got 'lucky'"),
        (lambda: Protocol(repeats=0), "`repeats` must be at least 1, got 0"),
        (lambda: Protocol(invalid="skip"), "`invalid` must be one of drop, zero, got 'skip'"),
        (
            lambda: compare(*PAIR, "manhattan"),
            "euclidean, cosine, local, global_local, visible, .*, got 'manhattan'",
        ),
        (
            lambda: compare(*PAIR, reranking="magic"),
            "none, k_reciprocal, .*got 'magic'",
        ),
        (
            lambda: compare(*PAIR, reranking="average_query_expansion", k1=3),
            "options of 'average_query_expansion': .*, got k1",
        ),
        (lambda: compare(*PAIR, k1=3), "options of 'none': none, got k1"),
    ],
)
def test_protocol_and_compare_invalid_arguments_raises(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_rank_valid_base_of_invalid_cases_returns_score():
    assert rank(**GOOD).mAP == pytest.approx(0.75)


def tied(seed, q=30, g=80):
    """Distances with many ties, and labels."""
    random = np.random.default_rng(seed)
    matrix = random.integers(6, size=(q, g)).astype(float)
    ids = random.integers(8, size=q), random.integers(-1, 8, size=g)
    cameras = random.integers(3, size=q), random.integers(3, size=g)
    return matrix, Labels(ids[0], cameras[0]), Labels(ids[1], cameras[1])


@pytest.mark.parametrize("seed", range(5))
def test_rank_tie_bounds_match_shifted_true_matches(seed):
    matrix, *labels = tied(seed)
    true = labels[0].identity[:, None] == labels[1].identity
    moved = {"optimistic": matrix - 0.25 * true, "pessimistic": matrix + 0.25 * true}
    found = {"index": rank(matrix, *labels)}
    for ties, closer in moved.items():
        found[ties] = rank(matrix, *labels, Protocol(ties=ties))
        assert_same(found[ties], rank(closer, *labels))
        assert "bound" in str(found[ties])
    for score in SCORES:
        low, middle, high = (
            getattr(found[t], score) for t in ("pessimistic", "index", "optimistic")
        )
        assert low < middle < high


def test_rank_without_ties_bounds_equal_score():
    features, *labels = example()
    orders = ("index", "optimistic", "pessimistic")
    results = [rank(features, *labels, Protocol(ties=ties)) for ties in orders]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_rank_mars_counts_unmatched_queries_as_zero():
    features, *labels = example()
    labels[0].identity[:5] = 99
    zero = Protocol(invalid="zero")
    assert_same(rank(features, *labels, "mars"), rank(features, *labels, zero))
    result = rank(features, *labels, Protocol("mars", invalid="drop"))
    assert_same(result, rank(features, *labels, protocol="cuhk03"))
    assert result.protocol.name == "mars"
    assert rank(features, *labels, protocol="mars").protocol.invalid_queries >= 5


def test_rank_all_vs_all_excludes_query_image():
    (_, gallery), _, labels = example()
    ids = labels.identity
    result = rank((gallery, gallery), labels, labels, "all-vs-all")
    matrix = distances.euclidean(gallery.astype("float64")).numpy()
    scored = []
    for i in np.flatnonzero(ids != -1):
        others = np.flatnonzero((np.arange(len(ids)) != i) & (ids != -1))
        same = ids[others] == ids[i]
        if same.any():
            scored.append(average_precision_score(same, -matrix[i, others]))
    assert result.mAP == pytest.approx(np.mean(scored), abs=1e-12)
    assert result.protocol.valid_queries == len(scored)
    assert result.protocol.gallery_size == (ids != -1).sum() - 1


def test_rank_cuhk03_classic_matches_mean_over_galleries():
    """Rank-1 is the fraction of the equally likely galleries that begin with a match."""
    gallery_ids, cameras = np.array([1, 1, 1, 2, 2, 3]), np.array([0, 1, 1, 1, 1, 1])
    order = np.array([[0.0, 3.0, 1.0, 2.0, 0.5, 4.0]])
    labels = Labels([1], [0]), Labels(gallery_ids, cameras)
    result = rank(order, *labels, Protocol("cuhk03-classic", repeats=20_000), max_rank=4)
    first = [sum(o < own for o in (two, 4.0)) for own in (3.0, 1.0) for two in (2.0, 0.5)]
    expected = [np.mean([f <= k for f in first]) for k in range(4)]
    np.testing.assert_allclose(result.cmc, expected, atol=0.015)
    assert result.protocol.repeats == 20_000
    whole = rank(order, *labels)
    assert [result.mAP, result.mINP] == [whole.mAP, whole.mINP]


def test_rank_cuhk03_classic_same_seed_repeats():
    features, *labels = example()
    results = [
        rank(features, *labels, Protocol("cuhk03-classic", repeats=3, seed=seed)).cmc
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    assert (results[0] >= rank(features, *labels).cmc - 0.5).all()
    ids = np.arange(20)
    sides = Labels(ids, ids * 0), Labels(ids, ids * 0 + 1)
    single = np.random.default_rng(0).random((20, 20)), *sides
    tied = np.random.default_rng(0).integers(4, size=(20, 20)).astype(float), *single[1:]
    for one in (single, tied):
        drawn = rank(*one, protocol="cuhk03-classic")
        np.testing.assert_array_equal(drawn.cmc, rank(*one).cmc)


def test_rank_viper_averages_halves_in_both_directions():
    random = np.random.default_rng(0)
    ids = random.permutation(20)
    matrix = random.random((20, 21))
    labels = Labels(ids, [1] * 20), Labels([*range(20), 99], [2] * 21)
    result = rank(matrix, *labels, Protocol("viper", repeats=4, seed=7), max_rank=10)
    drawn, found = np.random.default_rng(7), []
    for _ in range(4):
        half = drawn.permutation(20)[:10]
        rows, columns = np.flatnonzero(np.isin(ids, half)), np.sort(half)
        for part, q, g in (
            (matrix[np.ix_(rows, columns)], ids[rows], columns),
            (matrix[np.ix_(rows, columns)].T, columns, ids[rows]),
        ):
            found.append(rank(part, Labels(q), Labels(g), "no-camera", max_rank=10))
    np.testing.assert_allclose(result.cmc, np.mean([f.cmc for f in found], axis=0), atol=1e-12)
    assert result.mAP == pytest.approx(np.mean([f.mAP for f in found]), abs=1e-12)
    assert result.protocol.seed == 7
    assert "mean of 4 drawn" in str(result)
    with pytest.raises(InputError, match="ranks the same queries many times"):
        result.interval("mAP")


def test_rank_camera_pairs_match_separate_rankings():
    features, *labels = example(80, 200)
    query, gallery = labels
    result = rank(features, *labels, camera_pairs=True)
    assert_same(result, rank(features, *labels))
    assert len(result.camera_pairs) == 12
    for (c, d), pair in result.camera_pairs.items():
        kept = query.camera == c, gallery.camera == d
        part = tuple(x[keep] for x, keep in zip(features, kept, strict=True))
        sides = (
            Labels(side.identity[keep], side.camera[keep])
            for side, keep in zip(labels, kept, strict=True)
        )
        alone = rank(part, *sides)
        assert pair["queries"] == alone.protocol.valid_queries
        scores = [pair["rank-1"], pair["mAP"], pair["mINP"]]
        assert scores == pytest.approx([alone.rank(1), alone.mAP, alone.mINP], abs=1e-12)
    assert "camera 0 to 1" in str(result)
    assert {row["gallery_camera"] for row in result.to_dict()["camera_pairs"]} == {0, 1, 2, 3}


def test_interval_of_samples_covers_full_score():
    """About 95 of 100 intervals of 60 sampled queries contain the score of all queries."""
    features, *labels = example(2000, 150)
    whole = rank(features, *labels)
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        few = random.choice(2000, 60, replace=False)
        sampled = Labels(labels[0].identity[few], labels[0].camera[few])
        part = rank((features[0][few], features[1]), sampled, labels[1])
        low, high = part.interval("mAP", samples=200)
        held += low <= whole.mAP <= high
    assert 0.9 <= held / 200 <= 0.99


def test_interval_every_score_contains_its_value():
    features, *labels = example()
    labels[0].identity[:5] = 99
    result = rank(features, *labels, Protocol(invalid="zero"))
    for score in (*SCORES, "rank-1", "rank-5"):
        low, high = result.interval(score)
        value = result.rank(int(score[5:])) if score.startswith("rank") else getattr(result, score)
        assert low < value < high
        assert result.interval(score) == (low, high)
        wider = result.interval(score, level=0.99)
        assert wider[0] <= low
        assert wider[1] >= high
    values = rank(features, *labels).per_query.average_precision
    low, high = rank(features, *labels).interval("mAP", samples=4000)
    error = values.std() / len(values) ** 0.5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.08)
    for arguments in (("AP",), ("rank-0",), ("rank-x",), ("mAP", 1.0), ("mAP", 0.9, 0)):
        with pytest.raises(InputError, match=r"`score` must be one of|`(level|samples)` must be"):
            result.interval(*arguments)


def test_per_query_scores_average_to_result():
    features, *labels = example()
    result = rank(features, *labels)
    by_query = result.per_query
    assert len(by_query.query) == result.protocol.valid_queries
    assert by_query.average_precision.mean() == pytest.approx(result.mAP, abs=1e-12)
    one = int(by_query.query[3])
    query = Labels([labels[0].identity[one]], [labels[0].camera[one]])
    alone = rank((features[0][one : one + 1], features[1]), query, labels[1])
    assert alone.mAP == pytest.approx(by_query.average_precision[3], abs=1e-12)


@pytest.mark.slow
def test_rank_reranked_features_matches_rank_of_reranked_matrix(monkeypatch):
    features, *labels = example()
    few_at_a_time(monkeypatch, 7)
    for name in ("k_reciprocal", "alpha_query_expansion"):
        first = rank(compare(*features, reranking=name), *labels)
        made = reranking.RERANKERS[name](*features).matrix()
        assert_same(first, rank(made, *labels))
    options = {"k1": 5, "k2": 2}
    first = rank(compare(*features, reranking="k_reciprocal", **options), *labels)
    second = rank(reranking.k_reciprocal(*features, **options), *labels)
    assert_same(first, second)
    assert first.protocol.reranking == "k_reciprocal(k1=5, k2=2)"
    unit = tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in features)
    first = rank(compare(*features, "cosine", "k_reciprocal"), *labels)
    second = rank(compare(*unit, reranking="k_reciprocal"), *labels)
    assert first.mAP == pytest.approx(second.mAP, abs=1e-6)
    assert first.protocol.distance == "cosine"


def test_rank_matrix_rows_records_given_names():
    features, *labels = example()
    given = matrix_rows(np.array(distances.euclidean(*features)), "mine", "theirs")
    result = rank(given, *labels)
    assert_same(result, rank(features, *labels))
    assert (result.protocol.distance, result.protocol.reranking) == ("mine", "theirs")
    assert rank(given.matrix(), *labels).protocol.distance == "given matrix"


def test_rank_progress_reports_ranked_queries(monkeypatch):
    features, *labels = example()
    few_at_a_time(monkeypatch, 15)
    told = []
    rank(features, *labels, progress=lambda *done: told.append(done))
    assert told == [(15, 40), (30, 40), (40, 40)]


def test_load_features_saved_files_give_same_ranking(tmp_path):
    features, *labels = example()
    stored = {"embedding": features[1]}
    evaluation.save_features(tmp_path / "g.npz", stored, *labels[1])
    with pytest.raises(InputError, match=r"g\.npz` must be a new path"):
        evaluation.save_features(tmp_path / "g.npz", stored)
    (tmp_path / "q").mkdir()
    for name, column in (
        ("embedding", features[0]),
        ("identity", labels[0].identity),
        ("camera", labels[0].camera),
    ):
        np.save(tmp_path / f"q/{name}.npy", column)
    query, gallery = (evaluation.load_features(tmp_path / name) for name in ("q", "g.npz"))
    assert isinstance(query.features["embedding"], np.memmap)
    both = query.features["embedding"], gallery.features["embedding"]
    assert_same(rank(both, query, gallery), rank(features, *labels))
    first, second = (compare(*given, reranking="k_reciprocal") for given in (both, features))
    assert_same(rank(first, *labels), rank(second, *labels))


def test_load_features_invalid_file_raises(tmp_path):
    np.savez(tmp_path / "x.npz", feature=np.ones(3))
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.npz").write_text("no arrays")
    for name, message in (
        ("x.npz", "array embedding or local, got feature"),
        ("folder", "local, got none"),
        ("text.npz", "must be an .npz file"),
        ("missing.npz", "must be an .npz file"),
    ):
        with pytest.raises(InputError, match=message):
            evaluation.load_features(tmp_path / name)


@pytest.mark.real
def test_rank_public_features_matches_published_scores(real_data):
    stored = np.load(real_data / "data/features/market-retail0288.npz")
    sides = (Labels(stored[f"{side}p"], stored[f"{side}c"]) for side in "qg")
    result = rank((stored["q"], stored["g"]), *sides)
    assert 100 * result.rank(1) == pytest.approx(84.349, abs=0.01)
    assert 100 * result.mAP == pytest.approx(65.883, abs=0.01)
    assert result.protocol.valid_queries == 3233


def test_ranked_lists_short_gallery_has_no_junk():
    query, gallery = Labels([7], [0]), Labels([7, -1, 8], [0, 1, 1])
    (nearest,) = ranked_lists(np.array([[0.1, 0.2, 0.3]]), query, gallery, [0])
    assert nearest.gallery.tolist() == [2]
    assert nearest.same.tolist() == [False]


def test_rank_viper_camera_pairs_are_of_the_halves():
    """Every camera pair of a half has as many queries as the ranking of these cameras alone."""
    ids, cameras = np.arange(8), np.zeros(8, int)
    x = np.eye(8, dtype=np.float32)
    query, gallery = Labels(ids, cameras), Labels(ids, cameras + 1)
    result = rank((x, x), query, gallery, Protocol("viper", repeats=3), camera_pairs=True)
    assert {pair: values["queries"] for pair, values in result.camera_pairs.items()} == {
        (0, 1): 12,
        (1, 0): 12,
    }
    assert all(values["mAP"] == 1 for values in result.camera_pairs.values())


def test_rank_camera_pairs_of_protocol_without_cameras_are_empty():
    features, *labels = example()
    assert rank(features, *labels, "no-camera", camera_pairs=True).camera_pairs == {}


def test_interval_counts_unmatched_queries_as_zero():
    query, gallery = Labels([1, 1, 8, 9], [0] * 4), Labels([1], [1])
    result = rank(np.ones((4, 1)), query, gallery, Protocol(invalid="zero"))
    assert result.mAP == 0.5
    low, high = result.interval("mAP")
    assert low < 0.5 < high
