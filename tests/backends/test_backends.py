"""Values and gradients under TensorFlow, JAX and PyTorch, as selected by `KERAS_BACKEND`.

Imports no back end before it is asked for, so that it runs where only one is installed.

JAX has no double precision unless asked, so a near pair is only as exact there as a product in
float32. The batches are therefore scattered, without pairs of images that are nearly, but not
quite, the same; `test_distances_near_pairs_keep_precision` runs where there is double precision.
"""

from functools import cache, partial

import catalogue
import keras
import numpy as np
import oracle
import pytest
from keras import ops

from keras_reid import distances, layers, losses

BACKEND = keras.backend.backend()
# Under TensorFlow the tests of conformance have shown most of it already.
pytestmark = [pytest.mark.nightly] if BACKEND == "tensorflow" else []
ALL = pytest.mark.parametrize("name", catalogue.LOSSES)
METRIC = pytest.mark.parametrize(
    "name", [name for name, case in catalogue.LOSSES.items() if case.metric]
)
COMPARING = pytest.mark.parametrize(
    "name",
    [name for name, case in catalogue.LOSSES.items() if case.metric and not case.one_sided],
)
DISTILLATION_LOSSES = pytest.mark.parametrize("name", catalogue.DISTILLATION_LOSSES)
WIDTH = 6
# Identities of twelve images.
LABELS = {
    "balanced": np.repeat(np.arange(4), 3),
    "mixed": np.array([3, 0, 1, 0, 2, 1, 3, 3, 0, 2, 2, 1]),
    "lone": np.array([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 3, 1]),
    "mostly lone": np.array([0, 1, 2, 3, 4, 5, 0, 0, 0, 0, 0, 0]),
    "two": np.repeat([0, 1], 6),
    "one against all": np.array([0] * 11 + [1]),
    "one": np.zeros(12, int),
    "pairs": np.arange(12) % 6,
}


def batch(case, seed, kind="balanced"):
    """Labels and predictions `(12, …)`, at scales from 0.1 to 10."""
    rng = np.random.default_rng(seed)
    labels = LABELS[kind]
    centers = rng.normal(size=(WIDTH, WIDTH))
    scatter = rng.uniform(0.5, 2) * rng.normal(size=(len(labels), WIDTH))
    scale = 10 ** rng.uniform(-1, 1)
    return labels, case.prepare((scale * (centers[labels] + scatter)).astype("float32"))


def value_and_gradient(function, x):
    """`f(x)` and `∂ Σ f(x) / ∂x` as arrays, by the differentiation of the back end."""
    if BACKEND == "jax":
        return [np.array(result) for result in _with_jax(function, ops.convert_to_tensor(x))]
    if BACKEND == "torch":
        return _with_torch(function, ops.convert_to_tensor(x))
    return _with_tensorflow(function, ops.convert_to_tensor(x))


def _with_jax(function, x):
    import jax

    def total(x):
        value = function(x)
        return ops.sum(value), value

    (_, value), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return value, gradient


def _with_torch(function, x):
    import torch

    x = x.clone().requires_grad_()
    value = function(x)
    (gradient,) = torch.autograd.grad(value.sum(), x, allow_unused=True, materialize_grads=True)
    return ops.convert_to_numpy(value), ops.convert_to_numpy(gradient)


def _with_tensorflow(function, x):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    gradient = tape.gradient(value, x, unconnected_gradients="zero")
    return value.numpy(), gradient.numpy()


@cache
def running(name):
    """`(labels, predictions) -> value, gradient` of the loss; compiled under JAX, as Keras does."""
    loss = catalogue.LOSSES[name].loss()

    def run(labels, predictions):
        return value_and_gradient(partial(loss, labels), predictions)

    if BACKEND != "jax":
        return lambda labels, x: run(ops.convert_to_tensor(labels, "int32"), x)
    import jax

    compiled = jax.jit(lambda labels, x: _with_jax(partial(loss, labels), x))
    return lambda labels, x: [np.array(result) for result in compiled(labels, x)]


# --- Losses


@ALL
def test_losses_value_and_gradient_match_oracle(name):
    case, active = catalogue.LOSSES[name], 0
    for seed, kind in enumerate(LABELS):
        labels, predictions = batch(case, seed, kind)
        value, gradient = running(name)(labels, predictions)
        rounding = max(case.rounding(predictions), 1e-7)
        assert value == pytest.approx(case.value(labels, predictions), rel=1e-5, abs=rounding), kind
        truth = case.around(labels, predictions)
        direction = np.random.default_rng(seed).normal(size=predictions.shape)
        size = np.sum(np.abs(gradient * direction))
        soft = rounding if getattr(case.loss(), "margin", 0) == "soft" else 0
        expected = pytest.approx(
            oracle.directional_derivative(truth, predictions, direction),
            rel=1e-5,
            abs=(1e-5 + soft) * size + 1e-30,
        )
        assert np.sum(gradient * direction) == expected, kind
        active += size > 0
    assert active >= 3, "too few batches have a gradient to compare"


@ALL
def test_losses_full_gradient_matches_oracle(name):
    case = catalogue.LOSSES[name]
    labels, predictions = batch(case, 3)
    _, gradient = running(name)(labels, predictions)
    expected = oracle.gradient(case.around(labels, predictions), predictions)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@COMPARING
@pytest.mark.parametrize("labels", [np.zeros(12, int), np.arange(12)], ids=["one identity", "lone"])
def test_losses_without_comparisons_have_zero_value_and_gradient(name, labels):
    value, gradient = running(name)(labels, batch(catalogue.LOSSES[name], 3)[1])
    assert value == 0
    assert np.all(gradient == 0)


@METRIC
def test_losses_duplicate_and_zero_embeddings_match_oracle(name):
    """Losses and gradients are finite, also for equal embeddings of a collapsed model."""
    case = catalogue.LOSSES[name]
    labels, x = batch(case, 3)
    twins = x.copy()
    twins[[1, 4, 7]] = x[[0, 0, 6]]  # of one identity, and of two
    for points in (twins, np.repeat(x[:1], 12, axis=0), np.ones_like(x), np.zeros_like(x)):
        value, gradient = running(name)(labels, points)
        rounding = max(case.rounding(points), 1e-7)
        assert value == pytest.approx(case.value(labels, points), rel=1e-5, abs=rounding)
        assert np.all(np.isfinite(gradient))


if BACKEND == "jax":  # where everything above is compiled

    @ALL
    def test_losses_eager_and_jit_agree(name):
        loss = catalogue.LOSSES[name].loss()
        labels, predictions = batch(catalogue.LOSSES[name], 3)
        eager = value_and_gradient(partial(loss, labels), predictions)
        for result, expected in zip(running(name)(labels, predictions), eager, strict=True):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("kind", losses.MARGINS)
@pytest.mark.parametrize("bound", [1, -1])
def test_margin_softmax_cosines_near_bounds_keep_gradient(kind, bound):
    """An image that is its identity's only one soon has the cosine 1; a clip may halve its slope.

    The own cosine of arcface is left out: its slope has no limit there.
    """
    rows = 2 if kind == "arcface" else 3
    inside = np.array([[0.5, 0.99999, 0.1], [0.2, 0.4, 0.99999], [0.99999, 0.2, 0.3]], "float32")
    inside = bound * inside[:rows]
    loss = partial(losses.MarginSoftmaxLoss(kind, scale=4.0), np.array([0, 1, 0])[:rows])
    _, expected = value_and_gradient(loss, inside)
    _, gradient = value_and_gradient(loss, np.round(inside, 4))
    np.testing.assert_allclose(gradient, expected, rtol=1e-3)


@METRIC
def test_losses_gather_on_one_replica_has_no_effect(name):
    case = catalogue.LOSSES[name]
    if "pairs" in case.arguments:
        return  # given pairs are not gathered
    given = batch(case, 3)
    gathered, alone = (case.loss(gather=gather)(*given) for gather in (True, False))
    assert float(gathered) == float(alone)


@METRIC
def test_losses_measure_statistics_match_oracle(name):
    case = catalogue.LOSSES[name]
    labels, predictions = batch(case, 3)
    loss = case.loss()
    statistics = {
        key: float(statistic) for key, statistic in loss.measure(labels, predictions)[1].items()
    }
    positive, negative = oracle.pairs_of(case.compared(predictions), labels)
    assert statistics["positive"] == pytest.approx(np.mean(positive), rel=1e-5)
    assert statistics["negative"] == pytest.approx(np.mean(negative), rel=1e-5)
    assert 0 <= statistics["active"] <= 1


@pytest.mark.parametrize("loss", [losses.TripletHardLoss(), losses.QuadrupletLoss()])
def test_losses_fit_sgd_step_applies_gradient(loss):
    """One step of plain SGD is the gradient at the embeddings, carried to the kernel."""
    keras.utils.set_random_seed(0)
    name = type(loss).__name__
    labels, x = batch(catalogue.LOSSES[name], 3)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), loss)
    before = model.get_weights()[0]
    expected, slopes = running(name)(labels, x @ before)
    history = model.fit(x, labels, batch_size=len(x), shuffle=False, verbose=0).history
    assert history["loss"][0] == pytest.approx(float(expected), rel=1e-4)
    assert np.any(slopes)
    np.testing.assert_allclose(
        model.get_weights()[0], before - 0.1 * x.T @ slopes, rtol=1e-3, atol=1e-5
    )


# --- DistillationLoss


def two_models(name, seed):
    """Outputs `(12, 6)` of teacher and student; every third student has nearly learnt."""
    rng = np.random.default_rng(seed)
    teacher, student = rng.normal(size=(2, 12, WIDTH)) / 2
    student = teacher + student / 50 if seed % 3 == 0 else student
    scale = 1 if "not-normalized" in name else 10 ** rng.uniform(-1, 1)
    return [(scale * x).astype("float32") for x in (teacher, student)]


@cache
def distilling(name):
    """`(teacher, student) -> rows, gradient`; compiled under JAX, as Keras does."""
    loss = catalogue.DISTILLATION_LOSSES[name].loss()
    if BACKEND != "jax":
        return lambda teacher, x: value_and_gradient(
            partial(loss.call, ops.convert_to_tensor(teacher)), x
        )
    import jax

    compiled = jax.jit(lambda teacher, x: _with_jax(partial(loss.call, teacher), x))
    return lambda teacher, x: [np.array(result) for result in compiled(teacher, x)]


@DISTILLATION_LOSSES
def test_distillation_value_and_gradient_match_oracle(name):
    case = catalogue.DISTILLATION_LOSSES[name]
    for seed in range(12):
        teacher, student = two_models(name, seed)
        rows, gradient = distilling(name)(teacher, student)
        direction = np.random.default_rng(seed).normal(size=student.shape)
        rounding, slope_rounding = case.rounding(teacher, student, direction)
        expected = case.rows(teacher, student)
        assert np.all(np.abs(rows - expected) <= 1e-5 * np.abs(expected) + rounding), seed
        slope = oracle.directional_derivative(partial(case.value, teacher), student, direction)
        slopes = gradient * direction / len(rows)
        tolerance = 1e-5 * np.sum(np.abs(slopes)) + slope_rounding
        assert np.sum(slopes) == pytest.approx(slope, rel=1e-5, abs=tolerance), seed


@pytest.mark.parametrize(
    "name",
    [name for name in catalogue.DISTILLATION_LOSSES if name.startswith("RankDistillationLoss")],
)
def test_rank_distillation_tied_scores_gradient_matches_oracle(name):
    """The corners of a simplex are equally far, in float32 too if their number is a power of 2."""
    case = catalogue.DISTILLATION_LOSSES[name]
    teacher, student = two_models(name, 1)[0][:8], np.eye(8, dtype="float32")
    _, gradient = distilling(name)(teacher, student)
    expected = oracle.gradient(partial(case.value, teacher), student)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(gradient / 8, expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", catalogue.ONE_OF_EACH_DISTILLATION)
def test_distillation_teacher_gradient_is_zero(name):
    teacher, student = two_models(name, 1)
    loss = catalogue.DISTILLATION_LOSSES[name].loss()
    # PyTorch does not differentiate what depends on nothing, so a sum is added, of slope 1.
    _, gradient = value_and_gradient(lambda x: loss.call(x, student) + ops.sum(x, -1), teacher)
    assert np.all(gradient == 1)


@DISTILLATION_LOSSES
def test_distillation_extreme_outputs_are_finite(name):
    x = two_models(name, 1)[0]
    twins = np.repeat(x[:6], 2, axis=0)
    every = (x, 1e-6 * x, 1e6 * x, twins, 0 * x, 1e4 * np.sign(x), -1e4 * np.sign(x))
    for i, teacher in enumerate(every):
        for student in (x, *every[i:]):
            results = distilling(name)(*np.float32([teacher, student]))
            assert all(np.all(np.isfinite(result)) for result in results)


@pytest.mark.parametrize(
    "name", [name for name in catalogue.DISTILLATION_LOSSES if "hard" not in name]
)
def test_distillation_perfect_student_has_zero_loss(name):
    teacher, _ = two_models(name, 1)
    assert np.all(
        ops.convert_to_numpy(catalogue.DISTILLATION_LOSSES[name].loss().call(teacher, teacher)) == 0
    )


@DISTILLATION_LOSSES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_distillation_half_precision_computes_in_float32(name, dtype):
    case = catalogue.DISTILLATION_LOSSES[name]
    teacher, student = (ops.cast(x, dtype) for x in two_models(name, 1))
    exact = [ops.convert_to_numpy(ops.cast(x, "float32")) for x in (teacher, student)]
    rows = case.loss().call(teacher, student)
    assert keras.backend.standardize_dtype(rows.dtype) == "float32"
    expected = case.rows(*exact)
    rounding, _ = case.rounding(*exact, np.zeros_like(exact[1]))
    assert np.all(np.abs(ops.convert_to_numpy(rows) - expected) <= 1e-5 * expected + rounding)


@pytest.mark.parametrize("name", catalogue.ONE_OF_EACH_DISTILLATION)
def test_distillation_ensemble_loss_is_between_its_teachers(name):
    """One teacher: its own loss; two teachers near the student: a loss below the larger one."""
    loss = catalogue.DISTILLATION_LOSSES[name].loss()
    teacher, student = two_models(name, 1)
    other = two_models(name, 2)[0]
    student = ((teacher + other + student) / 3).astype(student.dtype)
    alone, with_other, of_other = (
        ops.convert_to_numpy(loss.call(loss.ensemble(teachers), student))
        for teachers in ([teacher], [teacher, other], [other])
    )
    expected = ops.convert_to_numpy(loss.call(teacher, student))
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-6)
    assert 0 < with_other.mean() < max(alone.mean(), of_other.mean())


@pytest.mark.parametrize("name", catalogue.ONE_OF_EACH_DISTILLATION)
def test_distillation_fit_sgd_step_applies_gradient(name):
    """One step of plain SGD is the gradient at the outputs, carried to the kernel."""
    keras.utils.set_random_seed(0)
    teacher, x = two_models(name, 1)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.1), catalogue.DISTILLATION_LOSSES[name].loss())
    before = model.get_weights()[0]
    _, slopes = distilling(name)(teacher, x @ before)
    model.fit(x, teacher, batch_size=len(x), shuffle=False, verbose=0)
    np.testing.assert_allclose(
        model.get_weights()[0], before - 0.1 * x.T @ slopes / len(x), rtol=1e-3, atol=1e-5
    )


# --- Distances and miners


@pytest.mark.parametrize("name", catalogue.DISTANCES)
def test_distances_match_oracle(name):
    distance, truth = catalogue.DISTANCES[name]
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(n, 5)).astype("float32") for n in (6, 4))
    for scale in (1e-6, 1, 1e6):
        within, across = distance(scale * x), distance(scale * x, scale * y)
        tolerance = {"rtol": 1e-5, "atol": 0}
        np.testing.assert_allclose(
            ops.convert_to_numpy(across), truth(scale * x, scale * y), **tolerance
        )
        np.testing.assert_allclose(
            ops.convert_to_numpy(within), truth(scale * x, scale * x), **tolerance
        )
        assert np.all(np.diag(ops.convert_to_numpy(within)) == 0)


@pytest.mark.parametrize("name", catalogue.DISTANCES)
def test_distances_coincident_points_have_zero_value_and_gradient(name):
    distance, _ = catalogue.DISTANCES[name]
    twins = np.repeat(np.random.default_rng(4).normal(size=(1, 70)), 5, axis=0).astype("float32")
    for points in (twins, np.zeros((3, 4), "float32")):
        value, gradient = value_and_gradient(distance, points)
        assert np.all(value == 0)
        assert np.all(gradient == 0)
    far = np.concatenate([twins, 30 * np.ones((1, 70), "float32")])
    value, gradient = value_and_gradient(distance, far)
    assert np.all(value[:5, :5] == 0)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("name", catalogue.DISTANCES)
def test_distances_weighted_gradient_matches_oracle(name):
    """Asymmetric weights of the distances reveal a transposition."""
    distance, truth = catalogue.DISTANCES[name]
    rng = np.random.default_rng(1)
    x, y, weights = (rng.normal(size=s).astype("float32") for s in ((5, 4), (5, 4), (5, 5)))
    weighted = ops.convert_to_tensor(weights)
    for to in (lambda x: (x,), lambda x: (x, y)):

        def total(x, to=to):
            return ops.sum(weighted * distance(*to(x)))

        def loops(x, to=to):
            return np.sum(weights * truth(x, to(x)[-1]))

        _, gradient = value_and_gradient(total, x)
        expected = oracle.gradient(loops, x)
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(distances.PRECISE != "float64", reason="no double precision")
@pytest.mark.parametrize("name", catalogue.DISTANCES)
def test_distances_near_pairs_keep_precision(name):
    """Pairs at 1e-4 of the norm; what remains is the rounding of unit vectors to float32."""
    distance, truth = catalogue.DISTANCES[name]
    x = np.random.default_rng(2).normal(size=(8, 2048)).astype("float32")
    x[4:] = x[:4] + 1e-4 * np.random.default_rng(3).normal(size=(4, 2048))
    np.testing.assert_allclose(ops.convert_to_numpy(distance(x)), truth(x, x), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_squared_euclidean_half_precision_computes_in_float32(dtype):
    x = ops.cast(40 * np.random.default_rng(0).normal(size=(6, 5)), dtype)
    exact = ops.convert_to_numpy(ops.cast(x, "float32"))
    result = distances.squared_euclidean(x)
    assert keras.backend.standardize_dtype(result.dtype) == "float32"
    expected = oracle.matrix(exact, exact, "squared_euclidean")
    np.testing.assert_allclose(ops.convert_to_numpy(result), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", catalogue.MINERS)
def test_miners_match_oracle(name, kind):
    mine, truth = catalogue.MINERS[name]
    labels = LABELS[kind]
    x = np.random.default_rng(5).normal(size=(len(labels), 3)).astype("float32")
    pairwise = np.linalg.norm(x[:, None] - x[None, :], axis=-1)
    same = labels[:, None] == labels[None, :]
    mined = mine(*map(ops.convert_to_tensor, (pairwise, same & ~np.eye(len(x), dtype=bool), ~same)))
    columns = np.broadcast_arrays(*map(ops.convert_to_numpy, mined))
    found = np.stack(columns[:2], axis=-1)[columns[2]]
    np.testing.assert_allclose(found, np.reshape(truth(pairwise, labels), (-1, 2)), rtol=1e-5)


# --- Layers


@pytest.mark.parametrize("name", catalogue.LAYERS)
def test_layers_match_oracle(name):
    case = catalogue.LAYERS[name]
    maps = np.random.default_rng(0).normal(0.5, 2, (3, 5, 4, 6)).astype("float32")
    layer, inputs = case.layer(), case.inputs(maps)
    assert type(layer) in [getattr(layers, public) for public in layers.__all__]
    result = layer(*inputs)
    expected = case.truth(*inputs, *layer.get_weights()[: case.weights])
    expected = list(expected) if isinstance(expected, tuple | list) else [expected]
    for one, other in zip(keras.tree.flatten(result), expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), other, rtol=1e-5, atol=1e-6)
