"""Losses: values by hand, bad arguments, statistics, plain `fit` and behavior of Keras."""

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

from keras_reid import losses, mining
from keras_reid.errors import InputError
from keras_reid.losses import IdentityLoss, MetricLoss, TripletHardLoss, metric

LINE = np.array([[0], [3], [4], [9]], "float32")
PAIRS = np.array([0, 0, 1, 1])


# --- TripletHardLoss


def test_triplet_hard_loss_returns_expected_values():
    np.testing.assert_array_equal(
        TripletHardLoss(margin=1.0, reduction=None)(PAIRS, LINE), [0, 3, 5, 0]
    )
    assert float(TripletHardLoss(margin=1.0)(PAIRS, LINE)) == 2.0


def test_triplet_hard_loss_soft_margin_returns_expected_value():
    value = float(TripletHardLoss(margin="soft")(PAIRS, LINE))
    assert value == pytest.approx(1.692900328499307, rel=1e-6)


def test_triplet_hard_loss_squared_euclidean_returns_expected_value():
    loss = TripletHardLoss(margin=1.0, distance="squared_euclidean")
    assert float(loss(PAIRS, LINE)) == 8.5


@pytest.mark.parametrize(("margin", "collapsed"), [(0.3, 0.3), ("soft", np.log(2))])
def test_triplet_hard_loss_collapsed_embeddings_equals_margin(margin, collapsed):
    assert float(TripletHardLoss(margin=margin)(PAIRS, np.ones((4, 8)))) == pytest.approx(collapsed)


def test_triplet_hard_loss_lone_identity_is_negative_only():
    """Anchors 0 and 1 see the lone 2.5 as nearest negative; the mean is over the four of pairs."""
    labels, line = np.append(PAIRS, 2), np.append(LINE, [[2.5]], axis=0).astype("float32")
    values = TripletHardLoss(margin=1.0, reduction=None)(labels, line)
    np.testing.assert_allclose(values, np.array([1.5, 3.5, 5, 0, 0]) * 5 / 4, rtol=1e-6)
    assert float(TripletHardLoss(margin=1.0)(labels, line)) == 2.5


def test_triplet_hard_loss_sample_weight_scales_anchors():
    weights = np.array([1, 2, 0, 1])
    assert float(TripletHardLoss(margin=1.0)(PAIRS, LINE, weights)) == 6 / 4


def test_triplet_hard_loss_column_labels_are_accepted():
    assert float(TripletHardLoss(margin=1.0)(PAIRS[:, None], LINE)) == 2.0


def test_metric_loss_all_miner_averages_over_all_comparisons():
    class TripletAll(MetricLoss):
        miner = "batch_all"

        def formula(self, mined):
            return self.hinge(mined.positive - mined.negative)

    loss = TripletAll(margin=1.0)
    assert float(loss(PAIRS, LINE)) == 1.25
    np.testing.assert_array_equal(loss.call(PAIRS, LINE), [0, 1.5, 3.5, 0])
    assert float(loss(np.zeros(4), LINE)) == 0


def test_metric_loss_function_as_miner_is_used():
    class OfPairs(TripletHardLoss):
        miner = staticmethod(mining.margin_sample)

    assert float(OfPairs(margin=1.0)(PAIRS, LINE)) == 5.0


@keras.saving.register_keras_serializable(package="tests")
def doubled(x):
    return 2 * tf.abs(x - tf.transpose(x))


def test_triplet_hard_loss_registered_distance_survives_config():
    loss = TripletHardLoss(margin=1.0, distance=doubled)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.distance is doubled
    assert float(again(PAIRS, LINE)) == float(loss(PAIRS, LINE)) == (5 + 9) / 4


@keras.saving.register_keras_serializable(package="tests")
def first_of_each(pairwise, positive, negative, read=None):
    return mining.batch_hard(pairwise, positive, negative, read)


@pytest.mark.parametrize("build", [losses.TripletLoss, losses.ImprovedTripletLoss])
def test_triplet_loss_registered_miner_survives_config(build):
    loss = build(miner=first_of_each)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.miner is first_of_each
    assert float(again(PAIRS, LINE)) == float(loss(PAIRS, LINE)) > 0


def test_triplet_hard_loss_get_config_contains_all_arguments():
    loss = TripletHardLoss("soft", "cosine", True, reduction="sum", name="t", dtype="float64")
    assert loss.get_config() == {
        "margin": "soft",
        "distance": "cosine",
        "normalize": True,
        "gather": False,
        "zero_for_missing": False,
        "reduction": "sum",
        "name": "t",
        "dtype": "float64",
        "label": None,
    }


@pytest.mark.parametrize("margin", [-0.1, float("inf"), float("nan")])
def test_triplet_hard_loss_invalid_margin_raises(margin):
    with pytest.raises(
        InputError, match=f"`margin` must be a number of at least 0.*, got {margin}"
    ):
        TripletHardLoss(margin=margin)


def test_triplet_hard_loss_unknown_distance_raises_at_construction():
    with pytest.raises(InputError, match=r"one of euclidean, .*, got 'l2'"):
        TripletHardLoss(distance="l2")


def test_triplet_hard_loss_label_count_mismatch_raises():
    with pytest.raises(InputError, match=r"got shape \(3,\) for 4 predictions"):
        TripletHardLoss()(PAIRS[:3], LINE)


def test_triplet_hard_loss_non_matrix_embeddings_raises():
    with pytest.raises(InputError, match=r"`x` must be .*got \(4, 1, 1\)"):
        TripletHardLoss()(PAIRS, LINE[:, None])


# --- IdentityLoss


def test_identity_loss_label_smoothing_returns_expected_value():
    logits = np.array([[np.log(3), 0]])
    value = float(IdentityLoss(label_smoothing=0.1)(np.array([0]), logits))
    assert value == pytest.approx(0.3426126868851863, rel=1e-6)


def test_identity_loss_label_smoothing_matches_keras():
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    labels = np.arange(7) % 5
    peer = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    expected = float(peer(np.eye(5)[labels], logits))
    assert float(IdentityLoss(label_smoothing=0.2)(labels, logits)) == pytest.approx(
        expected, rel=1e-6
    )


def test_identity_loss_huge_logits_is_finite():
    value = float(IdentityLoss(label_smoothing=0.0)(np.array([0, 1]), 1e6 * np.eye(2)[::-1]))
    assert value == pytest.approx(1e6)


@pytest.mark.parametrize("label_smoothing", [-0.1, 1.0, float("nan")])
def test_identity_loss_invalid_label_smoothing_raises(label_smoothing):
    with pytest.raises(InputError, match=rf"must be in \[0, 1\), got {label_smoothing}"):
        IdentityLoss(label_smoothing=label_smoothing)


def test_identity_loss_non_matrix_logits_raises():
    with pytest.raises(InputError, match=r"\(b, identities\), got \(4,\)"):
        IdentityLoss()(np.zeros(4), np.zeros(4))


@pytest.mark.parametrize("label", [-1, 5])
def test_identity_loss_label_out_of_range_raises(label):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"label value of {label}"):
        IdentityLoss()(np.array([label]), np.zeros((1, 5)))


# --- The other formulas, by hand

SIX = np.array([[0], [2], [5], [6], [10], [13]], "float32")
TRIPLES = np.array([[0], [1], [3], [4], [6], [10]], "float32")
THREE_PAIRS, TWO_TRIPLES = np.repeat([0, 1, 2], 2), np.repeat([0, 1], 3)
PLAIN = {"distance": "euclidean", "normalize": False}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (losses.ContrastiveLoss(5, reduce_pairs="all", normalize=False), 8.5),
        (losses.ContrastiveLoss(5, normalize=False), 21.25),
        (losses.ContrastiveLoss(5, reduce_pairs="nonzero", normalize=False), 25.5),
        (losses.ContrastiveLoss(5, "linear", "nonzero", normalize=False), 6.5),
        (losses.TripletLoss(1.0), 1.25),
        (losses.TripletLoss(1.0, nonzero=True), 10 / 3),
        (losses.TripletLoss("soft"), 1.0192594957680916),
        (losses.LiftedStructureLoss(1.0), 2.0276513500314297),
        (losses.MarginSampleMiningLoss(1.0), 5.0),
        (losses.ImprovedTripletLoss(1.0, 2.0, 0.5, **PLAIN), 3.0),
        (losses.TripletSemiHardLoss(1.0), 0.5),
    ],
)
def test_metric_losses_four_points_return_expected_values(loss, expected):
    assert float(loss(PAIRS, LINE)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("miner", "expected"), [("batch_hard", 1 / 6), ("batch_all", 1 / 24)])
def test_quadruplet_loss_points_on_line_returns_expected_value(miner, expected):
    loss = losses.QuadrupletLoss(1.0, 0.5, miner, **PLAIN)
    assert float(loss(THREE_PAIRS, SIX)) == pytest.approx(expected, rel=1e-6)


def test_quadruplet_loss_adaptive_margins_follow_mean_distances():
    loss = losses.QuadrupletLoss(adaptive=True, normalize=False)
    labels, line = tf.constant(PAIRS), tf.constant(LINE)
    assert [float(m) for m in loss.margins(loss.batch(labels, line))] == [16.5, 8.25]


@pytest.mark.parametrize(("margin", "expected"), [(1.0, 1.5768181834), ("soft", 1.2954460466)])
def test_soft_triplet_hard_loss_returns_expected_value(margin, expected):
    loss = losses.SoftTripletHardLoss(margin)
    assert float(loss(TWO_TRIPLES, TRIPLES)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (True, [0, 0.0199, 0.1468, -0.1465, -0.0198, -0.0004]),
        (False, [0, -0.0151, 0.1818, -0.1832, 0.0148, 0.0017]),
    ],
)
def test_soft_triplet_hard_loss_stop_gradient_weights_changes_gradient(stop, expected):
    """Test anchor 0 only: all other points are on one side of it."""
    loss = losses.SoftTripletHardLoss(10.0, stop_gradient_weights=stop, reduction=None)
    with tf.GradientTape() as tape:
        points = tf.constant(TRIPLES)
        tape.watch(points)
        of_first = loss(TWO_TRIPLES, points)[0] / 6
    gradient = np.array(tape.gradient(of_first, points))[:, 0]
    np.testing.assert_allclose(gradient[1:], expected[1:], atol=6e-5)


def distances_of_quadruplet(positive, negative, apart):
    """Two images of one identity, one of each of two others, far from everything but as told."""
    d = np.full((4, 4), 100.0, "float32")
    d[0, 1] = d[1, 0] = positive
    d[0, 2] = d[2, 0] = d[1, 2] = d[2, 1] = negative
    d[2, 3] = d[3, 2] = apart
    return d


@pytest.mark.parametrize(("apart", "expected"), [(4.0, 0.5), (2.0, 2.0)])
def test_quadruplet_loss_single_quadruplet_returns_expected_value(apart, expected):
    loss = losses.QuadrupletLoss(1.0, 0.5, distance="precomputed")
    d = distances_of_quadruplet(3.0, 3.5, apart)
    assert float(loss(np.array([0, 0, 1, 2]), d)) == pytest.approx(expected, rel=1e-6)


def test_improved_quadruplet_loss_returns_expected_value():
    loss = losses.ImprovedQuadrupletLoss(1.0, 0.5, 2.0, 0.25, distance="precomputed")
    d = distances_of_quadruplet(3.0, 3.5, 2.0)
    assert float(loss(np.array([0, 0, 1, 2]), d)) == pytest.approx(2.25, rel=1e-6)
    push = losses.ImprovedQuadrupletLoss(
        1.0, 0.5, 2.0, 0.25, push=2.5, push_weight=2.0, distance="precomputed"
    )
    assert float(push(np.array([0, 0, 1, 2]), d)) == pytest.approx(3.25, rel=1e-6)


def test_margin_sample_mining_loss_separated_pairs_is_zero():
    line = np.array([[0], [1], [10], [11]], "float32")
    assert float(losses.MarginSampleMiningLoss(1.0)(PAIRS, line)) == 0


def test_triplet_function_given_triplets_returns_expected_values():
    anchor, positive, negative = np.zeros((1, 1)), np.full((1, 1), 3.0), np.full((1, 1), 2.0)
    assert float(metric.triplet(anchor, positive, negative, 0.5)[0]) == 1.5
    assert float(metric.triplet(anchor, positive, negative, 0.5, "squared_euclidean")[0]) == 5.5
    assert float(metric.triplet(anchor, negative, positive, 0.5)[0]) == 0
    assert float(metric.triplet(anchor, positive, negative, 0.5, normalize=True)[0]) == 0.5
    with pytest.raises(InputError, match=r"must be euclidean, .* got 'precomputed'"):
        metric.triplet(anchor, positive, negative, distance="precomputed")


def test_contrastive_loss_given_pairs_returns_expected_values():
    same, apart = np.array([1, 0, 0]), np.array([3.0, 3.0, 6.0])
    loss = losses.ContrastiveLoss(5.0, pairs="given", reduction=None, reduce_pairs="all")
    np.testing.assert_array_equal(loss(same, apart), [9, 4, 0])
    np.testing.assert_array_equal(loss(same[:, None], apart[:, None]), [9, 4, 0])


@pytest.mark.parametrize(
    "build",
    [
        losses.TripletHardLoss,
        losses.MarginSampleMiningLoss,
        losses.ImprovedTripletLoss,
        losses.QuadrupletLoss,
        lambda **more: losses.TripletLoss(miner="batch_hard", **more),
    ],
)
@pytest.mark.parametrize("distance", ["euclidean", "squared_euclidean", "cosine"])
def test_metric_losses_large_batch_keeps_value_and_gradient(build, distance, monkeypatch):
    """Large batches compute distances of selected points again; small batches read the matrix."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 4)
    x = tf.constant(rng.normal(size=(24, 7)).astype("float32"))
    results = []
    for threshold in (512, 2):
        monkeypatch.setattr(losses.base, "_SPARSE_FROM", threshold)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = build(distance=distance)(labels, x)
        results.append((value, tf.convert_to_tensor(tape.gradient(value, x))))
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-6)
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-4, atol=1e-6)
    assert np.any(results[0][1] != 0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: losses.TripletLoss(miner="hardest"), "`miner` must be one of .*, got 'hardest'"),
        (lambda: losses.TripletHardLoss(None), '`margin` must be a number of at least 0 or "soft"'),
        (
            lambda: losses.SoftTripletHardLoss(temperature=0),
            "must be positive, got 0",
        ),
        (lambda: losses.ImprovedTripletLoss(pull=-1.0), "`pull` must be at least 0, got -1.0"),
        (
            lambda: losses.ImprovedQuadrupletLoss(push_weight=-1.0),
            "`push_weight` must be at least",
        ),
        (
            lambda: losses.QuadrupletLoss(margin2=-1.0),
            '`margin2` must be a number of at least 0 or "soft", got -1.0',
        ),
        (
            lambda: losses.QuadrupletLoss(miner="semi_hard"),
            "one of batch_hard, batch_all, got 'semi_hard'",
        ),
        (lambda: losses.ContrastiveLoss("soft"), "`margin` must be a number .* 0, got 'soft'"),
        (lambda: losses.ContrastiveLoss(form="l2"), "`form` must be one of hadsell, .*, got 'l2'"),
        (
            lambda: losses.ContrastiveLoss(reduce_pairs="sum"),
            "must be one of balanced",
        ),
        (lambda: losses.ContrastiveLoss(pairs="some"), "`pairs` must be one of batch, given"),
        (lambda: losses.ContrastiveLoss(pairs="given", gather=True), "'given' excludes"),
        (lambda: losses.LiftedStructureLoss("soft"), "a number of at least 0, got 'soft'"),
        (lambda: losses.CircleLoss(scale=0), "`scale` must be positive, got 0"),
        (
            lambda: losses.TripletHardLoss(distance="precomputed", normalize=True),
            "must be a distance of embeddings",
        ),
    ],
)
def test_losses_invalid_arguments_raises(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_precomputed_distance_non_square_matrix_raises():
    with pytest.raises(InputError, match=r"`x` must be of shape \(n, n\), got \(4, 3\)"):
        TripletHardLoss(distance="precomputed")(PAIRS, np.zeros((4, 3)))


# --- Statistics of a loss


def test_measure_returns_expected_statistics():
    """Anchors 0 and 3 keep the margin; of one identity are 3 and 5, of two 4, 9, 1 and 6."""
    value, statistics = TripletHardLoss(1.0).measure(PAIRS, LINE)
    seen = {name: float(statistic) for name, statistic in statistics.items()}
    assert float(value) == 2.0
    assert seen == {"active": 0.5, "positive": 4.0, "negative": 5.0, "norm": 4.0}


def test_measure_soft_margin_active_counts_nearer_negatives():
    assert float(TripletHardLoss("soft").measure(PAIRS, LINE)[1]["active"]) == 0.5


def test_measure_computes_distances_once():
    """And the loss is that of a call, weighted as there."""
    calls = []

    class Counting(TripletHardLoss):
        def batch(self, labels, predictions):
            calls.append(labels)
            return super().batch(labels, predictions)

    weights = np.array([1.0, 2.0, 0.5, 0.0], "float32")
    value, _ = Counting(1.0).measure(PAIRS, LINE, weights)
    assert len(calls) == 1
    assert float(value) == float(TripletHardLoss(1.0)(PAIRS, LINE, weights))


def test_measure_statistics_have_no_gradient():
    x = tf.Variable(LINE)
    with tf.GradientTape() as tape:
        total = sum(TripletHardLoss(1.0).measure(PAIRS, x)[1].values())
    assert tape.gradient(total, x) is None


def test_batch_statistics_as_metric_is_logged_and_saved(tmp_path):
    x, identities = people()
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])
    loss = TripletHardLoss()
    model.compile("sgd", loss, metrics=[losses.BatchStatistics(loss)])
    history = model.fit(x, identities, batch_size=48, verbose=0, shuffle=False).history
    assert set(history) == {"loss", *losses.STATISTICS}
    assert 0 < history["active"][0] <= 1
    model.reset_metrics()  # Keras continues to count after a fit.
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    before, after = (
        {
            name: float(value)
            for name, value in m.test_on_batch(x, identities, return_dict=True).items()
        }
        for m in (model, again)
    )
    assert after == pytest.approx(before)


# --- In a plain fit


def people(count=6, images=8, width=5):
    """Points that scatter around one center per identity."""
    rng = np.random.default_rng(0)
    centers = np.repeat(rng.normal(size=(count, width)), images, axis=0)
    x = (centers + 0.8 * rng.normal(size=centers.shape)).astype("float32")
    return x, np.repeat(np.arange(count, dtype="int32"), images)


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("loss", [TripletHardLoss(), IdentityLoss()], ids=lambda loss: loss.name)
def test_losses_in_plain_fit_decrease(loss):
    keras.utils.set_random_seed(0)
    x, identities = people()
    model = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(6)])
    model.compile(keras.optimizers.Adam(0.01), loss)
    history = model.fit(x, identities, batch_size=48, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.6 * history[0]


def heads():
    inputs = keras.Input((5,))
    features = keras.layers.Dense(4, name="features")(inputs)
    logits = keras.layers.Dense(6, name="logits")(features)
    return inputs, features, logits


def test_compile_dict_outputs_trains_every_loss():
    """A list of losses on one tensor would train the first only."""
    inputs, features, logits = heads()
    model = keras.Model(inputs, {"features": features, "logits": logits})
    model.compile("sgd", {"features": TripletHardLoss(), "logits": IdentityLoss()})
    x, identities = people()
    logs = model.fit(
        x, {"features": identities, "logits": identities}, batch_size=48, verbose=0
    ).history
    parts = logs["features_loss"][0] + logs["logits_loss"][0]
    assert logs["loss"][0] == pytest.approx(parts, rel=1e-6)
    assert min(logs["features_loss"][0], logs["logits_loss"][0]) > 0


@pytest.mark.parametrize("loss", [TripletHardLoss(), IdentityLoss()], ids=lambda loss: loss.name)
def test_losses_call_returns_value_per_image(loss):
    """Keras does not divide scalars by the number of replicas."""
    x, identities = people()
    assert loss.call(identities, np.tile(x, 2)).shape == (48,)


def test_keras_loss_labels_are_cast_to_its_dtype():
    """Two identities become one in a loss of Keras, and stay two here: `LabeledLoss`."""
    labels = np.array([2**24, 2**24, 2**24 + 1, 2**24 + 1])

    class Plain(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return TripletHardLoss(margin=1.0).call(y_true, y_pred)

    assert float(Plain()(labels, LINE)) == 0.0
    assert float(TripletHardLoss(margin=1.0)(labels, LINE)) == 2.0


# --- Large distances


@pytest.mark.first(2)
@pytest.mark.parametrize(
    ("distance", "norm", "temperature"),
    [
        ("squared_euclidean", 245.0, 0.01),
        ("squared_euclidean", 3e3, 0.1),
        ("squared_euclidean", 3e4, 0.1),
        ("squared_euclidean", 1e6, 0.01),
        ("euclidean", 1e6, 0.1),
    ],
)
@pytest.mark.parametrize("stop", [True, False])
def test_soft_triplet_hard_loss_large_distances_matches_oracle(norm, distance, temperature, stop):
    """Points with distances that differ by far more than the rounding of float32."""
    random = np.random.default_rng(3)
    x = random.normal(size=(24, 8))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True) * norm).astype("float32")
    labels = np.repeat(np.arange(6), 4)
    options = {"margin": 0.3, "temperature": temperature, "stop_gradient_weights": stop}
    loss = losses.SoftTripletHardLoss(distance=distance, **options)
    expected = oracle.soft_triplet_hard(labels, x.astype("float64"), distance=distance, **options)

    def value_and_gradient(points):
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = loss(labels, points)
        return value, tape.gradient(value, points)

    for compiled in (False, True):
        value, gradient = tf.function(value_and_gradient, jit_compile=compiled)(tf.constant(x))
        assert float(value) == pytest.approx(expected, rel=2e-4), f"compiled: {compiled}"
        assert np.isfinite(gradient).all()


def test_softest_xla_rounded_maximum_weights_sum_to_one():
    """XLA may round a scaled distance once for the maximum and once for the exponent."""
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32") * 1e5
    weights = tf.function(lambda d: mining.softest(d * 1.7, d > 0, 0.01), jit_compile=True)(
        tf.constant((x @ x.T) ** 2)
    )
    np.testing.assert_allclose(np.sum(weights, axis=1), 1, rtol=1e-5)


def test_triplet_loss_soft_margin_counts_every_triplet():
    """Softplus is never 0, so that both means coincide, though float32 underflows at −104."""
    x = np.array([[0], [150], [10], [400]], "float32")  # triplets of 140 and of −250 among them
    expected = oracle.triplets(PAIRS, x.astype("float64"), "soft", nonzero=True)
    plain, nonzero = (losses.TripletLoss("soft", nonzero=n)(PAIRS, x) for n in (False, True))
    assert float(nonzero) == pytest.approx(expected, rel=1e-6)
    assert float(nonzero) == float(plain)
