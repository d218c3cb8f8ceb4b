"""Distances compared with loops, and numerical edge cases such as near and coincident points."""

import catalogue
import numpy as np
import pytest
import tensorflow as tf

from keras_reid import distances
from keras_reid.errors import InputError

ALL = pytest.mark.parametrize("name", catalogue.DISTANCES)
POINTS = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
OTHERS = np.random.default_rng(1).normal(size=(4, 5)).astype("float32")


def gradient(function, x, jit_compile=False):
    """`∂ Σ f(x)`."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(function(x))
        return tape.gradient(total, x)

    return run(tf.constant(x)).numpy()


def test_catalogue_lists_every_distance():
    assert {*catalogue.DISTANCES, *catalogue.OTHER_DISTANCES} == set(distances.DISTANCES)


@ALL
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_distances_match_oracle(name, scale):
    distance, truth = catalogue.DISTANCES[name]
    x, y = scale * POINTS, scale * OTHERS
    np.testing.assert_allclose(distance(x, y), truth(x, y), rtol=1e-6)
    np.testing.assert_allclose(distance(x), truth(x, x), rtol=1e-6)


@ALL
def test_distances_near_pairs_keep_precision(name):
    """Pairs at 1e-4 of the norm: their squares would vanish in a float32 Gram expansion.

    What remains is the rounding of unit vectors to float32.
    """
    distance, truth = catalogue.DISTANCES[name]
    x = np.random.default_rng(2).normal(size=(8, 2048)).astype("float32")
    y = (x + 1e-4 * np.random.default_rng(3).normal(size=x.shape)).astype("float32")
    np.testing.assert_allclose(distance(x, y), truth(x, y), rtol=1e-4)


@pytest.mark.first(3)
@pytest.mark.parametrize("images", [4, 30])  # few of each person, and many
@pytest.mark.parametrize("jit_compile", [False, True])
@ALL
def test_distances_near_pairs_within_one_set_keep_precision(name, images, jit_compile):
    distance, truth = catalogue.DISTANCES[name]
    random = np.random.default_rng(6)
    persons = np.repeat(random.normal(size=(60 // images, 256)), images, axis=0)
    x = (persons + 1e-4 * random.normal(size=persons.shape)).astype("float32")
    found = tf.function(distance, jit_compile=jit_compile)(tf.constant(x))
    np.testing.assert_allclose(found, truth(x, x), rtol=2e-4)


def test_euclidean_common_offset_has_no_effect():
    offset = np.float32(1024)  # a power of two, so that adding it rounds but little
    x = np.round(POINTS * 64) / 64
    np.testing.assert_allclose(distances.euclidean(x + offset), distances.euclidean(x), rtol=1e-6)


@pytest.mark.first(3)
@ALL
@pytest.mark.parametrize("jit_compile", [False, True])
def test_distances_coincident_points_have_zero_value_and_gradient(name, jit_compile):
    distance, _ = catalogue.DISTANCES[name]
    x = np.repeat(np.random.default_rng(4).normal(size=(1, 700)), 5, axis=0).astype("float32")
    far = np.concatenate([x, 30 * np.ones((1, 700), "float32")])
    assert np.all(np.array(distance(far))[:5, :5] == 0)
    # Of two sets. The rounding of a row may be below 0, and of so many rows is above it for some.
    many = np.random.default_rng(5).normal(size=(64, 700)).astype("float32")
    assert np.all(np.diag(np.array(distance(many, many))) == 0)
    assert np.all(gradient(distance, x, jit_compile) == 0)
    assert np.all(np.isfinite(gradient(distance, far, jit_compile)))
    assert np.all(np.isfinite(gradient(distance, np.zeros((3, 4), "float32"), jit_compile)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_euclidean_underflowing_square_has_zero_gradient(jit_compile):
    x = np.array([[0.0], [1e-25]], "float32")
    assert np.all(gradient(distances.euclidean, x, jit_compile) == 0)


def test_euclidean_near_coincident_pair_keeps_gradient():
    """The guard must stop the gradient at 0 only: a clamp that is too wide would give 0 here."""
    x = np.array([[0.0], [0.0], [1e-5]], "float32")
    np.testing.assert_allclose(gradient(distances.euclidean, x)[:, 0], [-2, -2, 4], rtol=1e-5)


@ALL
def test_distances_diagonal_is_exactly_zero(name):
    distance, _ = catalogue.DISTANCES[name]
    # Rows this wide, with entries that all add up, round by more than the guard allows for.
    wide = np.random.default_rng(5).normal(size=(8, 1)) * np.ones((1, 100_000), "float32")
    for x in (POINTS, wide):
        assert np.all(np.diag(np.array(distance(x))) == 0)


@ALL
@pytest.mark.parametrize(
    ("given", "returned"),
    [("float16", "float32"), ("bfloat16", "float32"), ("int32", "float32"), ("float64", "float64")],
)
def test_distances_half_precision_computes_in_float32(name, given, returned):
    distance, truth = catalogue.DISTANCES[name]
    x = tf.cast(tf.constant(40 * POINTS), given)  # squared and summed beyond 65504 in float16
    result = distance(x)
    exact = tf.cast(x, "float64").numpy()
    assert result.dtype == returned
    np.testing.assert_allclose(result, truth(exact, exact), rtol=1e-6)


@ALL
def test_distances_unknown_batch_size_matches_eager(name):
    distance, _ = catalogue.DISTANCES[name]
    spec = tf.TensorSpec((None, 5))
    traced = tf.function(lambda x, y: (distance(x), distance(x, y)), [spec, spec], autograph=False)
    within, across = traced(POINTS, OTHERS)
    np.testing.assert_allclose(within, distance(POINTS), rtol=1e-6)
    np.testing.assert_allclose(across, distance(POINTS, OTHERS), rtol=1e-6)


@ALL
def test_distances_nan_propagates(name):
    distance, _ = catalogue.DISTANCES[name]
    x = POINTS.copy()
    x[2, 0] = np.nan
    off_diagonal = ~np.eye(len(x), dtype=bool)
    assert np.all(np.isnan(np.array(distance(x))[2][off_diagonal[2]]))


def test_cosine_matches_hand_computed_values():
    x = np.array([[1.0, 0], [0, 2], [-3, 0], [0, 0]], "float32")
    np.testing.assert_allclose(distances.cosine(x[:1], x[:3]), [[0, 1, 2]], atol=1e-7)
    assert np.all(np.isfinite(distances.cosine(x)))


def test_unit_normalizes_rows_and_zero_has_finite_gradient():
    np.testing.assert_allclose(distances.unit(np.array([[3.0, 4.0], [0, 0]])), [[0.6, 0.8], [0, 0]])
    small = distances.unit(np.array([[3e-6, 4e-6]], "float32"))
    np.testing.assert_allclose(small, [[0.6, 0.8]], rtol=1e-6)
    assert np.all(np.isfinite(gradient(distances.unit, np.zeros((2, 3), "float32"), True)))


def test_get_name_or_callable_returns_function():
    assert distances.get("cosine") is distances.cosine
    assert distances.get(len) is len


def test_get_unknown_name_raises_with_known_names():
    with pytest.raises(InputError, match=r"euclidean, .*, precomputed, got 'manhattan'"):
        distances.get("manhattan")


def test_euclidean_wrong_rank_raises():
    with pytest.raises(InputError, match=r"\(n, d\), got \(2, 3, 4\).*Flatten"):
        distances.euclidean(np.zeros((2, 3, 4)))


def test_euclidean_different_feature_sizes_raise():
    with pytest.raises(
        InputError, match=r"`y` must be of shape \(m, 3\), got \(2, 4\).*same model"
    ):
        distances.euclidean(np.zeros((2, 3)), np.zeros((2, 4)))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_euclidean_two_sets_coincident_points_have_zero_gradient(jit_compile):
    x, y = tf.constant([[1.0, 2.0], [3.0, 5.0]]), tf.constant([[1.0, 2.0]])

    @tf.function(jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(distances.euclidean(x, y))
        return tape.gradient(total, x)

    np.testing.assert_allclose(gradient(x), [[0, 0], np.array([2, 3]) / 13**0.5], rtol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_paired_euclidean_coincident_pair_has_zero_gradient(jit_compile):
    x, y = tf.constant([[1.0, 2.0], [3.0, 5.0]]), tf.constant([[1.0, 2.0], [3.0, 4.0]])

    @tf.function(jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(distances.paired(distances.euclidean)(x, y))
        return tape.gradient(total, x)

    np.testing.assert_allclose(gradient(x), [[0, 0], [0, 1]], rtol=1e-6)
