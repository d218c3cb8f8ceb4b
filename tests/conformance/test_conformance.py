"""Properties of every loss in the catalog: values, gradients, dtypes, saving and replicas."""

import json
from functools import cache, partial

import catalogue
import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf
from replicas import answer_of

from keras_reid import losses
from keras_reid.losses import MetricLoss

# The scope orders tests by loss, so that a process traces the graph of a loss once.
ALL = pytest.mark.parametrize("name", catalogue.LOSSES, scope="module")
COSTLY = pytest.mark.parametrize("name", catalogue.costly(catalogue.LOSSES), scope="module")
# XLA takes a second per loss.
COMPILED = pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        *((name, False) for name in catalogue.ONE_OF_EACH),
        ("TripletHardLoss", True),
        *(
            pytest.param(name, True, marks=pytest.mark.slow)
            for name in catalogue.ONE_OF_EACH
            if name != "TripletHardLoss"
        ),
    ],
    scope="module",
)
METRIC = pytest.mark.parametrize(
    "name", [name for name, case in catalogue.LOSSES.items() if case.metric], scope="module"
)
COMPARES = [name for name, case in catalogue.LOSSES.items() if case.metric and not case.one_sided]
WIDTH = 6

# One number per image, as few as identities, as many as a backbone's features.
WIDTHS = (1, 2, WIDTH, WIDTH, 64, 2048)


def batch(seed, width=WIDTH):
    """Labels and predictions: any number of identities, lone ones too, at any scale.

    The scale decides whether the hinge is open or closed, and the scatter how hard the batch is.
    """
    rng = np.random.default_rng(seed)
    images = int(rng.integers(2, 13))
    labels = rng.integers(0, int(rng.integers(1, WIDTH + 1)), size=images)
    centers = rng.normal(size=(WIDTH, width))
    scatter = rng.uniform(0.1, 2) * rng.normal(size=(images, width))
    scale = 10 ** rng.uniform(-2, 2)
    return labels, (scale * (centers[labels] + scatter)).astype("float32")


def hard_batch(case, seed):
    """A batch of the case: balanced or not, of any width, and with rows of different scales."""
    width = WIDTHS[seed % len(WIDTHS)] if case.metric else WIDTH
    labels, predictions = batch(seed, width)
    rng = np.random.default_rng(seed)
    if seed % 5 == 1:
        labels = np.arange(len(labels)) % max(len(labels) // 4, 1)
    if seed % 5 == 2:
        predictions = predictions * 10 ** rng.uniform(-2, 1, size=(len(labels), 1))
    return labels, case.prepare(predictions.astype("float32"))


def value_and_gradient(loss, labels, predictions):
    with tf.GradientTape() as tape:
        tape.watch(predictions)
        value = loss(labels, predictions)
    return value, tape.gradient(value, predictions)


@cache
def compiled(name, jit_compile=False):
    """Value and gradient as one graph: of unknown batch size, or by XLA of the size it is given."""
    loss = catalogue.LOSSES[name].loss()
    unknown = [tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, None))]
    run = tf.function(
        partial(value_and_gradient, loss),
        input_signature=None if jit_compile else unknown,
        jit_compile=jit_compile,
        autograph=False,
    )
    return lambda labels, predictions: tuple(
        np.array(result) for result in run(tf.constant(labels, tf.int32), tf.constant(predictions))
    )


def one_of(case, seed=3):
    labels, predictions = np.repeat(np.arange(4), 3), batch(seed)[1]
    predictions = np.resize(predictions, (12, WIDTH)) + np.arange(12, dtype="float32")[:, None]
    return labels, case.prepare(predictions)


def test_catalogue_lists_every_loss():
    listed = {name.split("-")[0] for name in catalogue.LOSSES}
    public = {name for name in losses.__all__ if name.endswith("Loss")}
    distilled = {name for name in public if name.endswith("DistillationLoss")}
    assert listed == public - distilled - {"MetricLoss"}


# --- Numbers


@ALL
@catalogue.BATCHES
def test_losses_value_and_gradient_match_oracle(name, seeds):
    case = catalogue.LOSSES[name]
    run = compiled(name)
    active = kinks = 0
    for seed in seeds:
        labels, predictions = hard_batch(case, seed)
        value, gradient = run(labels, predictions)
        rounding = max(case.rounding(predictions), 1e-7)
        assert value == pytest.approx(case.value(labels, predictions), rel=1e-5, abs=rounding), seed
        truth = case.around(labels, predictions)
        direction = np.random.default_rng(seed).normal(size=predictions.shape)
        slope = oracle.directional_derivative(truth, predictions, direction)
        # Entries of opposite sign cancel in a slope, so it is right to 1e-5 of their sizes; and
        # the slope exp(d) of a softplus to the rounding of d.
        size = np.sum(np.abs(gradient * direction))
        soft = rounding if getattr(case.loss(), "margin", 0) == "soft" else 0
        expected = pytest.approx(slope, rel=1e-5, abs=(1e-5 + soft) * size + 1e-30)
        if np.sum(gradient * direction) != expected:
            assert oracle.kinked(truth, predictions, direction), (seed, slope)
            kinks += 1
        active += size > 0
    assert active > len(seeds) / 4, "too few batches have a gradient to compare"
    assert kinks <= max(len(seeds) / 50, 1), "too many batches have no slope"


@METRIC
@catalogue.BATCHES
def test_losses_random_duplicates_match_oracle_value(name, seeds):
    """Two images of one identity, of two, and all images equal; there the slope has a kink."""
    case = catalogue.LOSSES[name]
    for seed in seeds[::4]:
        labels, predictions = hard_batch(case, seed)
        rows = np.random.default_rng(seed).integers(0, len(labels), size=len(labels))
        for twins in (predictions[rows], np.repeat(predictions[:1], len(labels), axis=0)):
            value, gradient = compiled(name)(labels, twins)
            expected, rounding = case.value(labels, twins), max(case.rounding(twins), 1e-7)
            assert value == pytest.approx(expected, rel=1e-5, abs=rounding), seed
            assert np.all(np.isfinite(gradient))


@COSTLY
def test_losses_full_gradient_matches_oracle(name):
    case = catalogue.LOSSES[name]
    labels, predictions = one_of(case)
    _, gradient = compiled(name)(labels, predictions)
    expected = oracle.gradient(case.around(labels, predictions), predictions)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@COMPILED
def test_loss_eager_graph_and_xla_agree(name, jit_compile):
    loss = catalogue.LOSSES[name].loss()
    labels, predictions = one_of(catalogue.LOSSES[name])
    eager = value_and_gradient(loss, labels, tf.constant(predictions))
    results = compiled(name, jit_compile)(labels, predictions)
    for result, expected in zip(results, eager, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6 * scale)


@COMPILED
def test_loss_extreme_batches_never_nan(name, jit_compile):
    """Test all norms, duplicates, equal and zero rows, one identity, lone identities, one image."""
    run = compiled(name, jit_compile)
    labels, predictions = one_of(catalogue.LOSSES[name])
    unit = predictions / np.linalg.norm(predictions, axis=1, keepdims=True)
    mixed = unit * np.logspace(-6, 6, len(unit), dtype="float32")[:, None]
    twins = np.repeat(unit[:6], 2, axis=0)
    for x in (1e-6 * unit, 1e6 * unit, mixed, twins, 1e6 * twins, np.ones_like(unit), 0 * unit):
        for y in (labels, np.zeros(12, int), np.arange(12) % WIDTH, np.repeat([0, 1], 6)):
            assert all(np.all(np.isfinite(result)) for result in run(y, x.astype("float32")))
    assert all(np.all(np.isfinite(result)) for result in run(labels[:1], unit[:1]))


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        *(
            (name, False) if "-" not in name else pytest.param(name, False, marks=pytest.mark.slow)
            for name in COMPARES
        ),
        *(
            pytest.param(name, True, marks=pytest.mark.slow)
            for name in catalogue.ONE_OF_EACH
            if name in COMPARES
        ),
    ],
    scope="module",
)
def test_loss_without_comparisons_has_zero_value_and_gradient(name, jit_compile):
    """A batch of one identity, and a batch of lone identities."""
    predictions = one_of(catalogue.LOSSES[name])[1]
    for labels in (np.zeros(12), np.arange(12)):
        value, gradient = compiled(name, jit_compile)(labels, predictions)
        assert value == 0
        assert np.all(gradient == 0)


@METRIC
def test_losses_repeated_image_matches_oracle_value(name):
    """An identity with too few images is completed by repetition."""
    case = catalogue.LOSSES[name]
    labels, predictions = one_of(case)
    predictions[1] = predictions[0]
    value, _ = compiled(name)(labels, predictions)
    assert value == pytest.approx(case.value(labels, predictions), rel=1e-5)


@ALL
def test_losses_batch_permutation_keeps_value_and_gradient(name):
    run = compiled(name)
    labels, predictions = one_of(catalogue.LOSSES[name])
    order = np.random.default_rng(0).permutation(12)
    value, gradient = run(labels, predictions)
    shuffled_value, shuffled_gradient = run(labels[order], predictions[order])
    assert shuffled_value == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(
        shuffled_gradient, gradient[order], rtol=1e-5, atol=1e-6 * np.abs(gradient).max()
    )


@METRIC
def test_losses_relabeled_identities_keep_value(name):
    run = compiled(name)
    labels, predictions = one_of(catalogue.LOSSES[name])
    assert run(1000 - 7 * labels, predictions)[0] == run(labels, predictions)[0]


# --- Precision


@COSTLY
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_losses_half_precision_computes_in_float32(name, dtype):
    case = catalogue.LOSSES[name]
    labels, predictions = one_of(case)
    half = tf.cast(tf.constant(predictions), dtype)
    exact = case.value(labels, tf.cast(half, "float64").numpy())
    for value in (case.loss()(labels, half), tf.reduce_mean(case.loss().call(labels, half))):
        assert value.dtype == "float32"
        assert float(value) == pytest.approx(exact, rel=1e-5)


# From where float32 can tell apart to where squares of distances are below its largest number.
EXTREMES = {
    "float32": (1e-30, 1e-19, 1e-10, 1e10, 1e16),
    "float16": (1e-7, 1e-6, 1e-4, 100),
    "bfloat16": (1e-30, 1e-10, 1e10, 1e16),
}


@COSTLY
@pytest.mark.parametrize("dtype", EXTREMES)
def test_losses_extreme_feature_scales_are_finite(name, dtype):
    case = catalogue.LOSSES[name]
    labels, predictions = one_of(case)
    for scale in EXTREMES[dtype] if case.metric else ():
        x = tf.Variable(tf.cast(case.prepare(predictions.astype("float64") * scale), dtype))
        with tf.GradientTape() as tape:
            loss = case.loss()(labels, x)
        gradient = tf.cast(tape.gradient(loss, x), "float32")
        assert np.isfinite(loss), scale
        assert np.isfinite(gradient).all(), scale


def model_of_each_class(policy="float32"):
    """A model with one input, dense layer and output per loss class, and its batch."""
    keras.utils.set_random_seed(0)
    inputs, outputs, x, y = {}, {}, {}, {}
    for name in catalogue.ONE_OF_EACH:
        y[name], x[f"{name}_x"] = one_of(catalogue.LOSSES[name])
        width = x[f"{name}_x"].shape[1]
        inputs[f"{name}_x"] = keras.Input((width,), name=f"{name}_x")
        outputs[name] = keras.layers.Dense(width, dtype=policy, name=name)(inputs[f"{name}_x"])
    loss = {name: catalogue.LOSSES[name].loss() for name in catalogue.ONE_OF_EACH}
    return keras.Model(inputs, outputs), loss, x, y


@pytest.mark.parametrize(
    "policy", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.nightly)]
)
def test_every_loss_mixed_precision_trains(policy):
    model, loss, x, y = model_of_each_class(policy)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=64)
    model.compile(scaled, loss, run_eagerly=True)
    before = {name: model.get_layer(name).get_weights()[0] for name in loss}
    logs = model.train_on_batch(x, y, return_dict=True)
    for name in loss:
        after = model.get_layer(name).get_weights()[0]
        assert np.isfinite(logs[f"{name}_loss"]), name
        assert np.all(np.isfinite(after)), name
        assert not np.array_equal(before[name], after), name


# --- Keras


@ALL
def test_losses_config_round_trip_is_identical(name):
    loss = catalogue.LOSSES[name].loss(name="mine", reduction="sum", dtype="float64")
    config = keras.losses.serialize(loss)
    again = keras.losses.deserialize(json.loads(json.dumps(config)))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert again.dtype == "float64"
    if name in catalogue.ONE_OF_EACH:
        labels, predictions = one_of(catalogue.LOSSES[name])
        assert float(again(labels, predictions)) == float(loss(labels, predictions))


def test_compiled_model_of_every_loss_loads_without_custom_objects(tmp_path):
    model, loss, x, y = model_of_each_class()
    model.compile("sgd", loss, run_eagerly=True)
    before = model.test_on_batch(x, y, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for name in loss:
        assert loaded.loss[name].get_config() == loss[name].get_config()
    after = loaded.test_on_batch(x, y, return_dict=True)
    assert {name: float(value) for name, value in after.items()} == pytest.approx(
        {name: float(value) for name, value in before.items()}, rel=1e-6
    )


@METRIC
def test_metric_losses_config_includes_base_options(name):
    """The defaults that later losses inherit: every option of the base is in the config."""
    options = set(catalogue.LOSSES[name].loss().get_config())
    assert options >= {"margin", "distance", "normalize", "name", "reduction", "dtype"}
    assert isinstance(catalogue.LOSSES[name].loss(), MetricLoss)


@pytest.fixture(scope="module")
def steps():
    """`{how: {name: [weights after a step on one replica, on two]}}`, see `replicas.py`."""
    return answer_of("replicas.py")


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue.ONE_OF_EACH + catalogue.ONE_OF_EACH_DISTILLATION)
def test_losses_two_replicas_same_batch_match_one(name, steps):
    """A loss that returned a scalar would take twice the step."""
    one, two = steps["same"][name]
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in catalogue.ONE_OF_EACH if catalogue.LOSSES[name].metric]
)
def test_losses_two_replicas_with_gather_match_one_on_joint_batch(name, steps):
    one, two = steps["halved"][name]
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", catalogue.ONE_OF_EACH_DISTILLATION)
def test_distillation_two_replicas_on_halves_match_one_on_whole_batch(name, steps):
    """Logits image by image; distances and ranks gathered, of the teacher too."""
    one, two = steps["halved"][name]
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)
