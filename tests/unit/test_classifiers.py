"""Margin softmax and center loss, and the classifier layers that produce their inputs."""

from functools import partial

import keras
import numpy as np
import oracle
import oracle_classifiers
import pytest
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.layers import Centers, CosineClassifier
from keras_reid.losses import MARGINS, CenterLoss, MarginSoftmaxLoss

CASES = [
    {"kind": "arcface"},
    {"kind": "arcface", "margin": 1.3, "scale": 4.0},
    {"kind": "cosface"},
    {"kind": "cosface", "margin": 1.0, "scale": 2.0, "label_smoothing": 0.1},
    {"kind": "sphereface"},
    {"kind": "sphereface", "margin": 3, "scale": 8.0},
]
case = pytest.mark.parametrize("arguments", CASES, ids=lambda a: "-".join(map(str, a.values())))
kind = pytest.mark.parametrize("kind", MARGINS)
compiled = pytest.mark.parametrize("jit_compile", [None, False, True])


def batch(seed, rows=9, identities=5):
    """Labels and cosines of every size: of all angles alike, or crowded around 90°."""
    rng = np.random.default_rng(seed)
    spread = rng.choice([0.999, 0.1])
    cosines = spread * np.cos(rng.uniform(0, np.pi, (rows, identities)))
    return rng.integers(0, identities, rows), cosines.astype("float32")


def slopes(loss, labels, x, jit_compile=None):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x)
        return value, tape.gradient(value, x)

    call = run if jit_compile is None else tf.function(run, jit_compile=jit_compile)
    return [result.numpy() for result in call(tf.constant(x))]


# --- MarginSoftmaxLoss


@case
def test_margin_softmax_value_and_gradient_match_oracle(arguments):
    loss = MarginSoftmaxLoss(**arguments)
    for seed in range(40):
        labels, cosines = batch(seed)
        truth = partial(oracle_classifiers.margin_softmax, labels, **arguments)
        value, gradient = slopes(loss, labels, cosines)
        assert value == pytest.approx(truth(cosines), rel=1e-5), seed
        expected = oracle.gradient(truth, cosines)
        bound = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=bound, err_msg=str(seed))


@pytest.mark.parametrize(
    ("kind", "margin", "cosine", "expected"),
    [
        ("arcface", np.pi / 6, 0.5, 0.0),  # 60° + 30°
        ("arcface", np.pi / 6, 1.0, np.sqrt(3) / 2),
        ("arcface", np.pi / 6, 1 - 2**-13, 0.858107426214983),  # 0.9° + 30°
        ("arcface", np.pi / 6, -1.0, -1.2617993877991494),  # beyond 180°: −1 − π/6 · 1/2
        ("cosface", 0.25, 0.5, 0.25),
        ("sphereface", 1, -0.75, -0.75),
        ("sphereface", 2, 0.5, -0.5),  # 60° · 2
        ("sphereface", 2, -0.5, -1.5),  # 120° · 2 = 240°, k = 1: 1/2 − 2
        ("sphereface", 4, 1.0, 1.0),
        ("sphereface", 4, 0.5, -1.5),  # 60° · 4 = 240°, k = 1
        ("sphereface", 4, -0.5, -4.5),  # 120° · 4 = 480°, k = 2: −1/2 − 4
        ("sphereface", 4, -1.0, -7.0),
    ],
)
def test_margin_softmax_matches_hand_computed_values(kind, margin, cosine, expected):
    """Against another identity at 90° and scale 3, the loss is `log(1 + exp(−3ψ))`."""
    loss = MarginSoftmaxLoss(kind, scale=3.0, margin=margin, reduction=None)
    cosines = np.array([[cosine, 0], [0, cosine]], "float32")
    values = loss(np.array([0, 1]), cosines)
    np.testing.assert_allclose(values, np.log1p(np.exp(-3 * np.full(2, expected))), rtol=1e-5)


@pytest.mark.parametrize(("kind", "none"), [("arcface", 0.0), ("cosface", 0.0), ("sphereface", 1)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_margin_softmax_without_margin_equals_cross_entropy(kind, none, label_smoothing):
    labels, cosines = batch(0)
    plain = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    expected = slopes(lambda y, x: plain(np.eye(5)[y], 16 * x), labels, cosines)
    ours = slopes(MarginSoftmaxLoss(kind, 16.0, none, label_smoothing), labels, cosines)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@case
def test_margin_softmax_increases_with_angle(arguments):
    angles = np.linspace(0, np.pi, 200)
    cosines = np.stack([np.cos(angles), np.zeros(200)], axis=1).astype("float32")
    loss = MarginSoftmaxLoss(**{**arguments, "scale": 1.0}, reduction=None)
    values = loss(np.zeros(200, int), cosines).numpy()
    assert np.all(np.diff(values[1:-1]) > 0)


@pytest.mark.first(5)
@kind
@compiled
def test_margin_softmax_cosines_at_bounds_are_finite(kind, jit_compile):
    rows = [[a, b, 0.5] for a in (-1, 1, 0) for b in (-1, 1)]
    for factor in (1.0, 1 + 2**-23, 3.0):
        cosines = np.float32(factor) * np.array(rows, "float32")
        outside = np.abs(cosines) > 1
        value, gradient = slopes(MarginSoftmaxLoss(kind), np.zeros(6, int), cosines, jit_compile)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))
        assert np.all(gradient[outside] == 0)
        assert np.any(gradient[:, 2] != 0) == (factor < 2)


@kind
def test_margin_softmax_cosines_beyond_one_equal_clipped(kind):
    loss, labels = MarginSoftmaxLoss(kind, scale=2.0), np.array([0, 1])
    beyond = np.float32(1 + 2**-20) * np.array([[1, -1], [-1, 1]], "float32")
    assert float(loss(labels, beyond)) == float(loss(labels, np.sign(beyond)))


def test_margin_softmax_nan_propagates():
    assert np.isnan(float(MarginSoftmaxLoss()(np.array([0]), np.array([[0.5, np.nan]]))))


@kind
def test_margin_softmax_config_round_trip_is_complete(kind):
    loss = MarginSoftmaxLoss(
        kind, 30.0, label_smoothing=0.1, name="m", reduction="sum", dtype="float64"
    )
    assert loss.get_config() == {
        "kind": kind,
        "scale": 30.0,
        "margin": oracle_classifiers.MARGINS[kind],
        "label_smoothing": 0.1,
        "name": "m",
        "reduction": "sum",
        "dtype": "float64",
        "label": None,
    }
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "softmax"}, "one of arcface, cosface, sphereface, got 'softmax'"),
        ({"margin": 28.6}, r"angle in \[0, π/2\] for arcface, got 28.6. 0.5 is usual"),
        ({"margin": -0.1}, r"angle in \[0, π/2\] for arcface, got -0.1"),
        ({"kind": "cosface", "margin": 2.5}, r"cosine in \[0, 2\] for cosface, got 2.5. 0.35 is"),
        ({"kind": "cosface", "margin": float("nan")}, "for cosface, got nan"),
        (
            {"kind": "sphereface", "margin": 1.5},
            "whole factor of at least 1 for sphereface, got 1.5. 4 is",
        ),
        ({"kind": "sphereface", "margin": 0}, "whole factor of at least 1 for sphereface, got 0"),
        ({"kind": "sphereface", "margin": float("inf")}, "for sphereface, got inf"),
        ({"scale": 0}, "`scale` must be positive, got 0. 64 is usual"),
        ({"scale": float("nan")}, "must be positive, got nan"),
        ({"scale": float("inf")}, "must be positive, got inf"),
        ({"label_smoothing": 1.0}, r"in \[0, 1\), got 1.0"),
    ],
)
def test_margin_softmax_bad_arguments_raise(arguments, message):
    with pytest.raises(InputError, match=message):
        MarginSoftmaxLoss(**arguments)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            MarginSoftmaxLoss(),
            r"`y_pred` must be of shape \(b, .*got \(4, 1, 1\)[.] Pass .* a classifier",
        ),
        (
            CenterLoss(),
            r"`y_pred` must be of shape \(b, .*got \(4, 1, 1\)[.] Pass .* layers.Centers",
        ),
    ],
)
def test_classifier_losses_wrong_rank_raises(loss, message):
    with pytest.raises(InputError, match=message):
        loss(np.zeros(4), np.zeros((4, 1, 1)))


@pytest.mark.parametrize("label", [-1, 5])
def test_classifier_losses_label_out_of_range_raises_or_gives_nan(label):
    labels, scores = np.array([label]), np.zeros((1, 5))
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"label value of {label}"):
        MarginSoftmaxLoss()(labels, scores)
    assert np.isnan(CenterLoss()(labels, scores))


# --- CenterLoss


def test_center_loss_matches_hand_computed_values():
    """Images at 3 and 4 of a line, centers at 0 and 2: 9/2 to the first, 4/2 to the second."""
    layer = Centers(2)
    layer.build((None, 1))
    layer.set_weights([np.array([[0.0], [2.0]])])
    distances = layer(np.array([[3.0], [4.0]], "float32"))
    np.testing.assert_array_equal(distances, [[9, 1], [16, 4]])
    np.testing.assert_array_equal(CenterLoss(reduction=None)([0, 1], distances), [4.5, 2])
    assert float(CenterLoss()(np.array([[0], [1]]), distances)) == 3.25


def test_center_loss_gradient_pulls_image_and_center_together():
    layer = Centers(3)
    layer.build((None, 2))
    layer.set_weights([np.array([[0.0, 0], [5, 5], [9, 9]])])
    x = tf.constant([[3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = CenterLoss()(np.array([1]), layer(x))
    of_image, of_centers = tape.gradient(loss, [x, layer.centers])
    np.testing.assert_allclose(of_image, [[-2, -1]], rtol=1e-6)
    np.testing.assert_allclose(of_centers, [[0, 0], [2, 1], [0, 0]], rtol=1e-6)


def test_center_loss_value_matches_oracle_and_config_is_complete():
    labels, distances = batch(4)
    loss = CenterLoss(name="c", reduction="sum", dtype="float64")
    expected = len(labels) * oracle_classifiers.center(labels, distances)
    assert float(loss(labels, distances)) == pytest.approx(expected, rel=1e-6)
    common = {"name": "c", "reduction": "sum", "dtype": "float64", "label": None}
    assert loss.get_config() == common
    half = CenterLoss()(labels, tf.cast(distances, "float16"))
    assert half.dtype == "float32"


def test_center_loss_ignores_infinite_distance_to_other_centers():
    value, gradient = slopes(CenterLoss(), np.array([0]), np.array([[2, np.inf]], "float32"))
    assert value == 1
    np.testing.assert_array_equal(gradient, [[0.5, 0]])


# --- Layers


def trained(layer, width=4, seed=0):
    layer.build((None, width))
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])
    return layer


def points(rows=6, width=4):
    return np.random.default_rng(1).normal(size=(rows, width)).astype("float32")


@compiled
def test_classifier_layers_match_oracle(jit_compile):
    for layer, truth in (
        (trained(CosineClassifier(5)), oracle_classifiers.cosines),
        (trained(Centers(5)), oracle_classifiers.squared_distances),
    ):
        call = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
        result = call(points())
        np.testing.assert_allclose(result, truth(points(), layer.get_weights()[0]), 1e-5, 1e-6)


def test_cosine_classifier_is_scale_invariant():
    layer = trained(CosineClassifier(5))
    expected = layer(points())
    np.testing.assert_allclose(layer(1e6 * points()), expected, atol=1e-6)
    layer.set_weights([1e-6 * layer.get_weights()[0]])
    np.testing.assert_allclose(layer(1e-6 * points()), expected, atol=1e-6)


@compiled
@pytest.mark.parametrize("layer", [CosineClassifier, Centers])
def test_classifier_layers_zero_inputs_have_finite_gradient(layer, jit_compile):
    layer, x = trained(layer(5)), points()
    x[0], x[1] = 0, layer.get_weights()[0].ravel()[:4]
    for factor in (1.0, 0.0):
        layer.set_weights([factor * w for w in layer.get_weights()])
        value, gradient = slopes(lambda _, x: tf.reduce_sum(layer(x)), None, x, jit_compile)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(x))
    assert np.all(np.isfinite(tape.gradient(value, layer.trainable_variables[0])))


def test_centers_layer_near_points_keep_precision():
    layer = Centers(2)
    layer.build((None, 4))
    centers = 100 + points(2)
    layer.set_weights([centers])
    x = (centers + 1e-2).astype("float32")
    expected = oracle_classifiers.squared_distances(x, centers)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("layer", [CosineClassifier, Centers])
def test_classifier_layers_mixed_precision_computes_in_float32(layer, policy):
    """Classifiers ignore the global policy; their own policy rounds only the inputs."""
    before = keras.config.dtype_policy()
    exact = trained(layer(5))
    keras.config.set_dtype_policy(policy)
    try:
        by_default, explicit = trained(layer(5)), trained(layer(5, dtype=policy))
        x, half = points(), tf.cast(points(), policy.removeprefix("mixed_"))
        np.testing.assert_array_equal(by_default(x), exact(x))
        expected = exact(tf.cast(half, "float32"))
        np.testing.assert_array_equal(by_default(half), expected)
        np.testing.assert_array_equal(explicit(x), expected)
        symbolic = explicit(keras.Input((4,)))
    finally:
        keras.config.set_dtype_policy(before)
    assert by_default(x).dtype == explicit(x).dtype == symbolic.dtype == "float32"


@pytest.mark.parametrize("layer", [CosineClassifier, Centers])
def test_classifier_layers_zero_identities_raise(layer):
    with pytest.raises(InputError, match="`num_identities` must be at least 1, got 0"):
        layer(0)


# --- Together


@pytest.mark.slow
@pytest.mark.first(1)
@case
def test_margin_softmax_fit_lowers_loss(arguments):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)
    x = (rng.normal(size=(6, 5))[labels] + 0.3 * rng.normal(size=(48, 5))).astype("float32")
    model = keras.Sequential([keras.layers.Dense(16, "relu"), CosineClassifier(6)])
    model.compile(keras.optimizers.Adam(0.02), MarginSoftmaxLoss(**arguments))
    losses = model.fit(x, labels, batch_size=48, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
