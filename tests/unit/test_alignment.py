"""Aligned stripe distances and losses: values, shortest paths, gradients and extreme inputs."""

import json
from functools import partial

import keras
import numpy as np
import oracle
import oracle_alignment
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reid import distances, losses, mining
from keras_reid.distances.stripes import saturated, shortest_path
from keras_reid.errors import InputError

SEEDS = st.integers(0, 10_000)
few = settings(max_examples=8, deadline=None)
LOG4 = 2 * np.log(2)  # tanh(LOG4 / 2) = 0.6


def images(seed, n=3, stripes=4, width=5):
    return np.random.default_rng(seed).normal(size=(n, stripes, width)).astype("float32")


def path_of(d):
    """`shortest_path` of one grid `(s, t)`."""
    return float(shortest_path(tf.constant(d, "float32")[:, None, :, None])[0, 0])


def gradient(function, *inputs, jit_compile=False):
    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            total = tf.reduce_sum(function(*inputs))
        return tape.gradient(total, inputs)

    return [slope.numpy() for slope in run(*map(tf.constant, inputs))]


# --- Values


def test_shortest_path_matches_hand_computed_values():
    assert path_of([[1, 2, 3], [4, 1, 1], [5, 6, 1]]) == 6
    assert path_of([[7]]) == 7
    assert path_of([[1, 2, 3]]) == 6


def test_aligned_two_stripes_match_hand_computed_values():
    """The distance to itself is the sum over steps to the next stripe."""
    f = np.array([[[0.0], [LOG4]]], "float32")
    g = np.zeros((1, 2, 1), "float32")
    np.testing.assert_allclose(distances.aligned(f, g), [[0.6]], rtol=1e-6)
    np.testing.assert_allclose(distances.aligned(f), [[0.6]], rtol=1e-6)
    assert np.all(np.array(distances.aligned(g)) == 0)


@pytest.mark.parametrize(("s", "t"), [(1, 1), (1, 5), (5, 1), (2, 2), (3, 5), (5, 4)])
def test_aligned_equals_minimum_over_all_paths(s, t):
    x, y = images(0, 3, s), images(1, 4, t)
    expected = [
        [oracle_alignment.shortest_of_all(oracle_alignment.cells(f, g)) for g in y] for f in x
    ]
    np.testing.assert_allclose(distances.aligned(x, y), expected, rtol=1e-6)


@pytest.mark.first(5)
@pytest.mark.parametrize("stripes", range(1, 17))
def test_aligned_any_number_of_stripes_matches_oracle(stripes):
    """Against the recurrence in loops, with another number on the other side, and row by row."""
    x, y = images(stripes, 3, stripes), images(99, 3, 17 - stripes)
    expected = oracle_alignment.aligned(x, y)
    np.testing.assert_allclose(distances.aligned(x, y), expected, rtol=1e-6)
    paired = distances.paired(distances.aligned)(x, y)
    np.testing.assert_allclose(paired, np.diag(expected), rtol=1e-6)
    np.testing.assert_allclose(distances.aligned(x), oracle_alignment.aligned(x, x), rtol=1e-6)


@few
@given(SEEDS, st.sampled_from([1e-3, 1.0, 10.0]))
def test_aligned_different_scales_match_oracle(seed, scale):
    x = scale * images(seed)
    np.testing.assert_allclose(distances.aligned(x), oracle_alignment.aligned(x, x), rtol=1e-5)


def test_aligned_far_stripes_do_not_overflow():
    far = 1e4 * images(0)
    np.testing.assert_array_equal(distances.aligned(far, -far), np.full((3, 3), 7.0))


def test_aligned_near_stripes_keep_precision():
    """Stripes at 1e-3 of their length: a float32 Gram expansion would lose three digits."""
    x = images(0, 2, 4, 512)
    y = x + 1e-3 * images(1, 2, 4, 512)
    both = np.concatenate([x, y])
    expected = oracle_alignment.aligned(both, both)
    np.testing.assert_allclose(distances.aligned(both), expected, rtol=1e-5)
    np.testing.assert_allclose(distances.aligned(x, y), expected[:2, 2:], rtol=1e-5)


# --- Paths


@few
@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_aligned_return_path_is_valid_and_sums_to_distance(seed, s, t):
    x, y = images(seed, 2, s), images(seed + 1, 3, t)
    total, path = map(np.array, distances.aligned(x, y, return_path=True))
    assert path.shape == (2, 3, s, t)
    for i, j in np.ndindex(2, 3):
        walked = [tuple(map(int, cell)) for cell in np.argwhere(path[i, j])]
        assert walked in oracle_alignment.paths(s, t)
        cost = sum(oracle_alignment.cells(x[i], y[j])[cell] for cell in walked)
        assert total[i, j] == pytest.approx(cost, rel=1e-5)


def test_aligned_shifted_image_path_follows_shift():
    """The other box was cut one stripe higher."""
    rng = np.random.default_rng(0)
    person = 3 * rng.normal(size=(1, 6, 8)).astype("float32")
    shifted = np.concatenate([person[:, :1], person[:, :-1]], axis=1)
    _, path = distances.aligned(person, shifted, return_path=True)
    assert all(path[0, 0, i, i + 1] for i in range(5))


# --- Slopes


@few
@given(SEEDS, st.integers(1, 5), st.integers(1, 5))
def test_aligned_gradient_matches_oracle(seed, s, t):
    x, y = images(seed, 2, s, 3), images(seed + 1, 3, t, 3)

    def total_of_x(x):
        return float(oracle_alignment.aligned(x, y).sum())

    def total_of_y(y):
        return float(oracle_alignment.aligned(x, y).sum())

    by_x, by_y = gradient(distances.aligned, x, y)
    np.testing.assert_allclose(by_x, oracle.gradient(total_of_x, x), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(by_y, oracle.gradient(total_of_y, y), rtol=1e-4, atol=1e-6)


def unrolled(x):
    """The recurrence as TensorFlow differentiates it by itself."""
    apart = tf.norm(x[:, None, :, None] - x[None, :, None, :] + 1e-12, axis=-1)
    d, total = tf.tanh(apart / 2), {}
    for i, j in np.ndindex(*d.shape[2:]):
        before = [total[cell] for cell in ((i - 1, j), (i, j - 1)) if cell in total]
        best = [tf.minimum(*before)] if len(before) == 2 else before
        total[i, j] = sum(best, d[:, :, i, j])
    return total[i, j]


@pytest.mark.first(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_aligned_gradient_matches_unrolled_recurrence(jit_compile):
    x, weights = images(0, 5, 6), images(1, 5, 5, 1)[..., 0]
    weights *= 1 - np.eye(5, dtype="float32")  # an image and itself have paths of equal length
    own = gradient(lambda x: weights * distances.aligned(x), x, jit_compile=jit_compile)
    expected = gradient(lambda x: weights * unrolled(x), x)
    np.testing.assert_allclose(own[0], expected[0], rtol=1e-4, atol=1e-6)


def test_shortest_path_tied_paths_send_gradient_to_one():
    """A minimum would give half to each; where they meet, the slope is whole again."""
    d = tf.ones((2, 1, 2, 1))
    (slope,) = gradient(shortest_path, d)
    assert sorted(slope[:, 0, :, 0].ravel().tolist()) == [0, 1, 1, 1]
    assert slope[0, 0, 0, 0] == slope[1, 0, 1, 0] == 1


def test_saturated_large_distance_gradient_keeps_precision():
    """The slope 1 − tanh² is 0 in float32 at a distance of 30."""
    (slope,) = gradient(saturated, np.array([0.0, 1.0, 30.0, 200.0], "float32"))
    expected = [0.5, 0.5 / np.cosh(0.5) ** 2, 2 * np.exp(-30), 0]
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


@pytest.mark.first(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_aligned_equal_stripes_have_finite_gradient(jit_compile):
    same = np.repeat(images(0, 1), 3, axis=0)
    flat = np.repeat(images(0, 2, 1), 4, axis=1)
    for x in (same, flat, 0 * same):
        for function in (distances.aligned, lambda x: distances.aligned(x, x)):
            (slope,) = gradient(function, x, jit_compile=jit_compile)
            assert np.all(np.isfinite(slope))
    (slope,) = gradient(distances.aligned, 0 * same, jit_compile=jit_compile)
    assert np.all(slope == 0)


# --- Invariants


@few
@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_aligned_is_symmetric_flip_invariant_and_bounded(seed, s, t):
    x, y = images(seed, 2, s), images(seed + 1, 3, t)
    total = np.array(distances.aligned(x, y))
    np.testing.assert_allclose(np.transpose(distances.aligned(y, x)), total, rtol=1e-6)
    np.testing.assert_allclose(distances.aligned(x[:, ::-1], y[:, ::-1]), total, rtol=1e-5)
    assert np.all(total >= 0)
    assert np.all(total < s + t - 1)
    for i, j in np.ndindex(2, 3):
        d = oracle_alignment.cells(x[i], y[j])
        below = max(d.min(axis=1).sum(), d.min(axis=0).sum())
        assert total[i, j] >= below * (1 - 1e-6)
        for path in oracle_alignment.paths(s, t)[:10]:
            assert total[i, j] <= sum(d[cell] for cell in path) * (1 + 1e-6)


@few
@given(SEEDS)
def test_aligned_self_distance_is_zero_only_for_equal_stripes(seed):
    x = images(seed)
    alike = np.repeat(x[:, :1], 4, axis=1)
    assert np.all(np.diag(distances.aligned(x)) > 0)
    assert np.all(np.diag(distances.aligned(alike)) == 0)


def test_shortest_path_diagonal_includes_cost_of_steps():
    d = np.array([[1.0, 0, 9], [9, 1, 0], [9, 9, 1]])
    assert path_of(d) == np.trace(d)
    assert path_of(d + 0.25) == pytest.approx(np.trace(d) + 5 * 0.25)


# --- Numbers, graphs


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_aligned_half_precision_computes_in_float32(dtype):
    x = tf.cast(images(0), dtype)
    exact = tf.cast(x, "float64").numpy()
    for result in (distances.aligned(x), distances.aligned(x, x)):
        assert result.dtype == "float32"
        np.testing.assert_allclose(result, oracle_alignment.aligned(exact, exact), rtol=1e-5)
    assert distances.paired(distances.aligned)(x, x).dtype == "float32"


def test_aligned_double_precision_is_kept():
    x = images(0).astype("float64")
    assert distances.aligned(x).dtype == "float64"
    np.testing.assert_allclose(distances.aligned(x), oracle_alignment.aligned(x, x), rtol=1e-12)


@pytest.mark.first(1)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_aligned_eager_graph_and_xla_agree(jit_compile):
    x, y = images(0, 4), images(1, 3, 6)
    run = tf.function(distances.aligned, jit_compile=jit_compile, autograph=False)
    np.testing.assert_allclose(run(x, y), distances.aligned(x, y), rtol=1e-5)
    path = run(x, y, return_path=True)[1]
    np.testing.assert_array_equal(path, distances.aligned(x, y, return_path=True)[1])
    np.testing.assert_allclose(run(x), distances.aligned(x), rtol=1e-5)


def test_aligned_unknown_batch_size_matches_eager():
    spec = tf.TensorSpec((None, 4, 5))
    run = tf.function(
        lambda x, y: (distances.aligned(x), distances.aligned(x, y)), [spec, spec], autograph=False
    )
    for n in (3, 2):
        x, y = images(0, n), images(1, 4)
        for result, expected in zip(run(x, y), (x, y), strict=True):
            np.testing.assert_allclose(result, distances.aligned(x, expected), rtol=1e-5)


def test_aligned_nan_propagates():
    x = images(0)
    x[1, 2, 0] = np.nan
    assert np.all(np.isnan(np.array(distances.aligned(x))[1]))


@pytest.mark.parametrize("shape", [(3, 5), (3,), (2, 3, 4, 5)])
def test_aligned_input_without_stripes_raises(shape):
    with pytest.raises(InputError, match=r"`x` must be of shape \(n, stripes, d\), got .*`local`"):
        distances.aligned(np.zeros(shape))


def test_aligned_different_feature_sizes_raise():
    for compare in (distances.aligned, distances.paired(distances.aligned)):
        with pytest.raises(
            InputError, match=r"`y` must be of shape \(., ., 5\), got \(3, 4, 6\).*same model"
        ):
            compare(images(0, 3, 4, 5), images(0, 3, 4, 6))


# --- The loss, in addition to the catalogue


LABELS = np.repeat(np.arange(4), 3)


def outputs(seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(12, 6)).astype("float32")
    return tf.constant(features), tf.constant(rng.normal(size=(12, 3, 5)).astype("float32"))


def test_aligned_triplet_loss_mines_globally_and_compares_locally():
    features, local = outputs()
    chooses = np.array(distances.euclidean(features))
    own = LABELS[:, None] == LABELS
    others = ~np.eye(12, dtype=bool)
    positives = np.argmax(np.where(own & others, chooses, -1), axis=1)
    negatives = np.argmin(np.where(own, 99, chooses), axis=1)
    apart = np.array(distances.aligned(local))
    at = np.arange(12)
    expected = np.maximum(apart[at, positives] - apart[at, negatives] + 0.3, 0)
    value = losses.AlignedTripletLoss().call(LABELS, (features, local))
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_aligned_triplet_loss_gradient_reaches_only_local_features():
    features, local = outputs()
    with tf.GradientTape() as tape:
        tape.watch([features, local])
        value = losses.AlignedTripletLoss()(LABELS, (features, local))
    of_features, of_local = tape.gradient(value, [features, local])
    assert of_features is None or np.all(of_features == 0)
    assert np.any(of_local != 0)


def test_aligned_triplet_loss_by_local_equals_triplet_hard_aligned():
    features, local = outputs()
    for predictions in ((features, local), local):
        value = losses.AlignedTripletLoss(by="local")(LABELS, predictions)
        expected = losses.TripletHardLoss(distance="aligned")(LABELS, local)
        assert float(value) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("build", [losses.TripletHardLoss, losses.SoftTripletHardLoss])
def test_triplet_losses_aligned_distance_equals_precomputed(build):
    """Compare `local` outputs with each miner, and with the matrix of distances."""
    local = outputs()[1]
    value = build(distance="aligned")(LABELS, local)
    matrix = distances.aligned(local)
    assert float(value) == pytest.approx(
        float(build(distance="precomputed")(LABELS, matrix)), rel=1e-5
    )
    assert build(distance="aligned").collapse_value() == pytest.approx(0.3)


def test_aligned_triplet_loss_measure_uses_global_distances():
    _, statistics = losses.AlignedTripletLoss().measure(LABELS, outputs())
    _, chooses = losses.TripletHardLoss().measure(LABELS, outputs()[0])
    for statistic in ("positive", "negative", "norm"):
        assert float(statistics[statistic]) == pytest.approx(float(chooses[statistic]))
    assert 0 < float(statistics["active"]) <= 1


def test_aligned_triplet_loss_collapse_value_is_margin():
    assert losses.AlignedTripletLoss(0.4).collapse_value() == pytest.approx(0.4)
    soft = losses.AlignedTripletLoss("soft", by="local")
    assert soft.collapse_value() == pytest.approx(np.log(2))


def test_aligned_triplet_loss_config_round_trip_keeps_by():
    loss = losses.AlignedTripletLoss(0.5, by="local", normalize=True, gather=True, name="mine")
    config = json.loads(json.dumps(keras.losses.serialize(loss)))
    again = keras.losses.deserialize(config)
    assert again.get_config() == loss.get_config()
    assert again.by == "local"
    assert float(again(LABELS, outputs())) == float(loss(LABELS, outputs()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_aligned_triplet_loss_half_precision_computes_in_float32(dtype):
    half = tuple(tf.cast(output, dtype) for output in outputs())
    loss = losses.AlignedTripletLoss()
    exact = loss(LABELS, tuple(tf.cast(output, "float32") for output in half))
    for value in (loss(LABELS, half), tf.reduce_mean(loss.call(LABELS, half))):
        assert value.dtype == "float32"
        assert float(value) == pytest.approx(float(exact), rel=1e-6)


def test_aligned_triplet_loss_training_lowers_loss(tmp_path):
    keras.utils.set_random_seed(0)
    maps = keras.Input((4, 5))
    local = keras.layers.Dense(3, name="local")(maps)
    model = keras.Model(maps, {"local": local})
    loss = losses.AlignedTripletLoss(by="local", margin=1.0)
    model.compile(keras.optimizers.Adam(0.05), loss={"local": loss})
    x = np.random.default_rng(0).normal(size=(12, 4, 5))
    before = float(loss(LABELS, model(x)["local"]))
    for _ in range(20):
        model.train_on_batch(x, {"local": LABELS})
    after = float(loss(LABELS, model(x)["local"]))
    assert after < 0.8 * before
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss["local"].get_config() == loss.get_config()
    assert float(loaded.loss["local"](LABELS, loaded(x)["local"])) == pytest.approx(after)


def test_aligned_triplet_loss_unknown_by_raises():
    with pytest.raises(InputError, match=r"`by` must be one of features, local, got 'global'"):
        losses.AlignedTripletLoss(by="global")


@pytest.mark.parametrize("given", ["features", "local", "swapped"])
def test_aligned_triplet_loss_missing_output_raises(given):
    features, local = outputs()
    predictions = {"features": features, "local": local, "swapped": (local, features)}[given]
    with pytest.raises(InputError, match=r"the outputs features .*List the loss under .features"):
        losses.AlignedTripletLoss()(LABELS, predictions)


def test_aligned_triplet_loss_label_count_mismatch_raises():
    with pytest.raises(InputError, match=r"shape \(5,\) for 12 predictions"):
        losses.AlignedTripletLoss().call(LABELS[:5], outputs())


def test_aligned_triplet_loss_miner_reads_entries():
    """The loss reads what its miner chose, so its miner is one of these."""
    assert mining.get(losses.AlignedTripletLoss.miner) in mining.SPARSE
    assert losses.AlignedTripletLoss().is_sparse


def test_identity_loss_part_logits_sum_over_classifiers():
    """The identity loss of several classifiers is the sum of theirs."""
    logits = np.random.default_rng(0).normal(size=(12, 3, 4)).astype("float32")
    each = partial(losses.IdentityLoss(0.2).call, LABELS)
    expected = sum(np.array(each(logits[:, part])) for part in range(3))
    np.testing.assert_allclose(each(logits), expected, rtol=1e-6)
