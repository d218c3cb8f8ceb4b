"""Distillation losses of the catalog: values, gradients, invariants and a constant teacher."""

import json
import math
from functools import cache, partial

import catalogue
import keras
import numpy as np
import oracle
import oracle_distillation
import pytest
import tensorflow as tf

from keras_reid import losses
from keras_reid.errors import InputError
from keras_reid.losses import DistanceDistillationLoss, LogitDistillationLoss, RankDistillationLoss


def cases(chosen=lambda case: True):
    return pytest.mark.parametrize(
        "name",
        [name for name, case in catalogue.DISTILLATION_LOSSES.items() if chosen(case)],
        scope="module",
    )


ALL = cases()
RELATIONS = cases(lambda case: case.relates)
PERFECT = cases(lambda case: case.arguments.get("mode") != "hard")
ONE_OF_EACH = pytest.mark.parametrize("name", catalogue.ONE_OF_EACH_DISTILLATION)
# XLA takes seconds for each. The linear ranks have a power without a slope at 0.
COMPILED = ("LogitDistillationLoss", "DistanceDistillationLoss", "RankDistillationLoss-linear")
HOW = pytest.mark.parametrize(
    ("name", "jit_compile"),
    [(name, False) for name in catalogue.ONE_OF_EACH_DISTILLATION]
    + [(name, True) for name in COMPILED],
    scope="module",
)
IMAGES, WIDTH = 12, 6
# One number per image, as few as classes, as many as a backbone's features.
WIDTHS = (1, 2, WIDTH, WIDTH, 64, 2048)


def outputs(case, seed):
    """Outputs of teacher and student for a few identities, of any width, size and likeness."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, size=int(rng.integers(case.fewest, 11)))
    width = WIDTHS[seed % 6]
    # Points on a line have no lengths and no order but two, once they are normalized.
    teacher = _clusters(rng, labels, max(width, 2) if case.fewest > 1 else width)
    student = _clusters(rng, labels, WIDTHS[seed // 6 % 6] if case.relates else width)
    if seed % 4 == 0:  # nearly learnt
        noise = rng.normal(size=teacher.shape) / np.sqrt(teacher.shape[1])
        student = teacher + 10 ** rng.uniform(-3, -1) * noise
    sizes = 10 ** rng.uniform(*case.sizes) * np.array([1, 10 ** rng.uniform(-0.5, 0.5)])
    return [(size * x).astype("float32") for size, x in zip(sizes, (teacher, student), strict=True)]


def _clusters(rng, labels, width):
    centers = rng.normal(size=(4, width))[labels]
    return (centers + rng.uniform(0.1, 2) * rng.normal(size=centers.shape)) / np.sqrt(width)


def two(seed=0, images=IMAGES, width=WIDTH):
    """Outputs of two models of the same width."""
    return np.random.default_rng(seed).normal(size=(2, images, width)).astype("float32") / 2


def rows_and_gradients(loss, teacher, student):
    with tf.GradientTape() as tape:
        tape.watch([teacher, student])
        rows = loss.call(teacher, student)
        value = tf.reduce_mean(rows)
    return rows, *tape.gradient(value, [student, teacher], unconnected_gradients="zero")


def compiled(name, jit_compile=False):
    """Losses of the images, gradients of student and teacher; of unknown sizes, or by XLA."""
    return lambda *given: tuple(map(np.array, _graph(name, jit_compile)(*map(tf.constant, given))))


@cache
def _graph(name, jit_compile):
    return tf.function(
        partial(rows_and_gradients, catalogue.DISTILLATION_LOSSES[name].loss()),
        input_signature=None if jit_compile else [tf.TensorSpec((None, None))] * 2,
        jit_compile=jit_compile,
        autograph=False,
    )


def rounding(name, teacher, student):
    """Sum of the losses of the images."""
    return catalogue.DISTILLATION_LOSSES[name].rounding(teacher, student, np.zeros_like(student))[0]


def assert_near(rows, expected, rounding):
    assert rows.shape == expected.shape
    assert np.all(np.abs(rows - expected) <= 1e-5 * np.abs(expected) + rounding)


def test_catalogue_lists_every_distillation_loss():
    listed = {name.split("-")[0] for name in catalogue.DISTILLATION_LOSSES}
    public = {name for name in losses.__all__ if name.endswith("DistillationLoss")}
    assert listed == public - {"DistillationLoss"}
    assert listed == {kind.__name__ for kind in losses.DISTILLATION_LOSSES.values()}
    assert set(losses.DISTILLATION_LOSSES) == {"logits", "cosine", "distances", "ranks"}


# --- Numbers


@ALL
@catalogue.BATCHES
def test_distillation_value_and_gradient_match_oracle(name, seeds):
    case, active, undecided = catalogue.DISTILLATION_LOSSES[name], 0, 0
    for seed in seeds:
        teacher, student = outputs(case, seed)
        if case.fewest > 1 and oracle_distillation.undecided(teacher, **case.arguments):
            undecided += 1
            continue
        rows, gradient, back = compiled(name)(teacher, student)
        direction = np.random.default_rng(seed).normal(size=student.shape)
        row_rounding, slope_rounding = case.rounding(teacher, student, direction)
        assert_near(rows, case.rows(teacher, student), row_rounding)
        slope = oracle.directional_derivative(partial(case.value, teacher), student, direction)
        # Entries of opposite sign cancel in a slope, so it is right to 1e-5 of their sizes.
        size = np.sum(np.abs(gradient * direction))
        expected = pytest.approx(slope, rel=1e-5, abs=1e-5 * size + slope_rounding + 1e-30)
        assert np.sum(gradient * direction) == expected, seed
        assert not np.any(back)
        active += slope_rounding < 1e-3 * size
    assert undecided <= max(len(seeds) / 20, 1), (
        "too many teachers with an order that depends on rounding"
    )
    assert active > len(seeds) / 2, "too few batches have a gradient to compare"


@ALL
def test_distillation_full_gradient_matches_oracle(name):
    teacher, student = two(images=8)
    _, gradient, _ = compiled(name)(teacher, student)
    expected = oracle.gradient(partial(catalogue.DISTILLATION_LOSSES[name].value, teacher), student)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@cases(lambda case: case.build is RankDistillationLoss)
def test_rank_distillation_tied_scores_gradient_matches_oracle(name):
    """The corners of a simplex are equally far, in float32 too if their number is a power of 2."""
    case = catalogue.DISTILLATION_LOSSES[name]
    teacher, student = two(images=8)[0], np.eye(8, dtype="float32")
    rows, gradient, _ = compiled(name)(teacher, student)
    assert_near(rows, case.rows(teacher, student), rounding(name, teacher, student))
    expected = oracle.gradient(partial(case.value, teacher), student)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@HOW
def test_distillation_eager_graph_and_xla_agree(name, jit_compile):
    teacher, student = two()
    loss = catalogue.DISTILLATION_LOSSES[name].loss()
    rows, *gradients = rows_and_gradients(loss, tf.constant(teacher), tf.constant(student))
    results = compiled(name, jit_compile)(teacher, student)
    assert_near(results[0], rows.numpy(), rounding(name, teacher, student))
    for gradient, expected in zip(results[1:], gradients, strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=2e-6 * scale)


@HOW
def test_distillation_degenerate_outputs_are_finite(name, jit_compile):
    """Test all norms, duplicates, equal and zero rows as teacher and as student of each other."""
    x = two()[0]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    mixed = unit * np.logspace(-6, 6, IMAGES, dtype="float32")[:, None]
    twins = np.repeat(unit[:6], 2, axis=0)
    sure = 1e4 * np.sign(x)
    every = (x, 1e-6 * unit, 1e6 * unit, mixed, twins, 1e6 * twins, 0 * x + 1, 0 * x, sure, -sure)
    for teacher in every:
        for student in every:
            results = compiled(name, jit_compile)(*np.float32([teacher, student]))
            assert all(np.all(np.isfinite(result)) for result in results)


@ALL
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_distillation_half_precision_computes_in_float32(name, dtype):
    case = catalogue.DISTILLATION_LOSSES[name]
    teacher, student = (tf.cast(tf.constant(x), dtype) for x in two())
    exact = [tf.cast(x, "float64").numpy() for x in (teacher, student)]
    loss, expected = case.loss(), case.rows(*exact)
    for given in (teacher, tf.cast(teacher, "float32")):
        rows = loss.call(given, student)
        assert rows.dtype == "float32"
        assert_near(rows.numpy(), expected, rounding(name, *exact))
    assert float(loss(teacher, student)) == pytest.approx(np.mean(rows), rel=1e-6)
    assert loss.ensemble([teacher, student]).dtype == "float32"


@ALL
def test_distillation_double_precision_matches_oracle(name):
    case = catalogue.DISTILLATION_LOSSES[name]
    teacher, student = (x.astype("float64") for x in two())
    rows = case.loss(dtype="float64").call(teacher, student).numpy()
    assert rows == pytest.approx(case.rows(teacher, student), rel=1e-9)


# --- By hand

LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
SURE, EVEN, OTHER = [LN3, 0.0], [0.0, 0.0], [0.0, LN3]


def test_logit_distillation_divergence_matches_hand_computed_values():
    assert _of_one(LogitDistillationLoss(), SURE, EVEN) == pytest.approx(
        0.13081203594113708, rel=1e-6
    )
    assert _of_one(LogitDistillationLoss(), EVEN, SURE) == pytest.approx(
        0.1438410362258904, rel=1e-6
    )
    soft = _of_one(LogitDistillationLoss(temperature=2), [2 * LN3, 0.0], EVEN)
    assert 0.5 * LN2 + 0.5 * soft == pytest.approx(0.6081976621622468, rel=1e-6)


def test_logit_distillation_three_peers_match_hand_computed_values():
    loss = LogitDistillationLoss()
    peers = [_of_one(loss, peer, SURE) for peer in (EVEN, OTHER)]
    assert sum(peers) / 2 == pytest.approx(0.3465735902799727, rel=1e-6)
    assert sum(peers) == pytest.approx(0.6931471805599454, rel=1e-6)
    united = loss.ensemble([tf.constant([peer]) for peer in (EVEN, OTHER)])
    assert float(loss(united, tf.constant([SURE]))) == pytest.approx(0.3127515147113673, rel=1e-6)


def _of_one(loss, teacher, student):
    return float(loss(tf.constant([teacher]), tf.constant([student])))


def test_distance_distillation_both_directions_match_hand_computed_values():
    """The sum of both directions is 4; the slope is that of one direction."""
    loss = DistanceDistillationLoss(distance="precomputed")
    first, second = (tf.Variable([[0.0, d], [d, 0.0]]) for d in (1.0, 3.0))
    with tf.GradientTape() as tape:
        value = loss(first, second) + loss(second, first)
    assert float(value) == 4
    np.testing.assert_array_equal(tape.gradient(value, first), [[0, -1], [-1, 0]])


def test_rank_distillation_loss_matches_hand_computed_values():
    student = np.array([[0], [0.5], [-0.25], [0.75], [1]])
    # The last breaks a tie, which only the order of the hard list depends on.
    for mode, last, expected in (("soft", -1, 2.244312030568703), ("hard", -1.01, 3.2311025806416)):
        teacher = np.array([[0], [0.25], [-0.5], [0.75], [last]])
        loss = RankDistillationLoss(mode, list_length=3, normalize=False)
        assert float(loss(teacher, student)) == pytest.approx(expected, rel=1e-6)


def test_rank_distillation_orders_match_hand_computed_values():
    """Scores ln 4, ln 2 and ln 1 of the first image, but for a constant; or all three equal."""
    ranked = np.array([[0], [1], [1 + LN2], [-1 - LN4]])
    even = np.array([[0, 0], [1, 0], [0, 1], [-1, 0]])
    space = {"alpha": 1, "beta": 1, "list_length": 3, "normalize": False}

    def first(mode, teacher, student):
        return float(RankDistillationLoss(mode, **space).call(teacher, student)[0])

    assert first("hard", ranked, ranked) == pytest.approx(-math.log(8 / 21), rel=1e-6)
    assert first("hard", ranked, even) == pytest.approx(math.log(6), rel=1e-6)
    assert first("soft", ranked, even) == pytest.approx(0.23843447975117227, rel=1e-5)


def test_oracle_all_orders_probabilities_sum_to_one():
    """The oracle itself: probabilities of all orders sum to 1."""
    for length in range(2, 7):
        orders = oracle_distillation.all_orders(length)
        assert len(orders) == math.factorial(length)
        scores = np.random.default_rng(length).normal(size=length)[orders]
        assert np.exp(oracle_distillation.log_probability(scores)).sum() == pytest.approx(1)


def test_rank_distillation_confident_teacher_soft_equals_hard():
    """The longest soft list, which the hard one must equal where only one order is likely."""
    line = 10 * np.arange(13)[:, None]
    student = 0.3 * np.random.default_rng(0).normal(size=(13, 3))
    soft, hard = (
        float(
            RankDistillationLoss(mode, beta=1, list_length=12, normalize=False).call(line, student)[
                0
            ]
        )
        for mode in ("soft", "hard")
    )
    assert soft == pytest.approx(hard, rel=1e-5)
    assert hard > 1


# --- Invariants


@PERFECT
def test_distillation_perfect_student_has_exactly_zero_loss(name):
    x = two()[0]
    assert np.all(catalogue.DISTILLATION_LOSSES[name].loss().call(x, x) == 0)


@HOW
def test_distillation_perfect_student_in_graph_is_zero_up_to_rounding(name, jit_compile):
    """TensorFlow rewrites the teacher's x / √y as x · 1/√y, but not the student's."""
    case = catalogue.DISTILLATION_LOSSES[name]
    if case.arguments.get("mode") == "hard":
        return  # its loss is the negative log probability of the order
    for seed in range(4):
        x = np.float32(10 ** (seed / 2 - 1)) * two(seed)[0]
        rows, gradient, _ = compiled(name, jit_compile)(x, x)
        direction = np.random.default_rng(seed).normal(size=x.shape)
        row_rounding, slope_rounding = case.rounding(x, x, direction)
        assert np.all(np.abs(rows) <= row_rounding)
        slopes = gradient * direction
        assert abs(slopes.sum()) <= slope_rounding + 1e-5 * np.abs(slopes).sum()


@cases(lambda case: case.build is LogitDistillationLoss)
def test_logit_distillation_shifted_logits_have_zero_loss(name):
    teacher, _ = two()
    teacher = np.round(64 * teacher) / 64  # so that the sum is exact
    shift = np.arange(IMAGES, dtype="float32")[:, None] - 5
    rows, _, _ = compiled(name)(teacher, teacher + shift)
    assert np.all(rows == 0)


@PERFECT
def test_distillation_imperfect_student_has_positive_loss(name):
    """Values are at least 0 up to rounding, also near the minimum, and above 0 away from it."""
    for seed in range(4):
        teacher, other = two(seed)
        for step in (1e-6, 1e-4, 1e-2, 1):
            student = teacher + np.float32(step) * other
            rows, _, _ = compiled(name)(teacher, student)
            assert np.all(rows >= -rounding(name, teacher, student))
        assert np.all(rows > 0)


@pytest.mark.parametrize("gap", [16, 65, 1000, 20000])
def test_logit_distillation_confident_outputs_match_oracle(gap):
    """Clipped probabilities would give wrong losses for confident, opposite logits."""
    teacher = np.array([[gap, 0, -gap / 2], [0, gap / 2, gap]], "float32") / 2
    student = np.array([[0, gap, 1], [gap, 0.5, -gap]], "float32") / 2
    for temperature in (1, 4):
        rows = LogitDistillationLoss(temperature).call(teacher, student).numpy()
        expected = oracle_distillation.logits(teacher, student, temperature)
        np.testing.assert_allclose(rows, expected, rtol=1e-6)
    clipped = keras.losses.KLDivergence()(keras.ops.softmax(teacher), keras.ops.softmax(student))
    assert float(clipped) < 16.2
    if gap > 16:
        assert oracle_distillation.logits(teacher, student).mean() > 2 * float(clipped)


@pytest.mark.parametrize("temperature", [1, 4])
def test_logit_distillation_ensemble_loss_is_at_most_mean_of_peers(temperature):
    loss = LogitDistillationLoss(temperature)
    for seed in range(20):
        student, *peers = np.random.default_rng(seed).normal(size=(4, 5, WIDTH)).astype("float32")
        united = loss.ensemble(peers)
        alone = [loss.call(peer, student).numpy() for peer in peers]
        assert np.all(loss.call(united, student) <= np.mean(alone, axis=0))
        mean = np.mean([keras.ops.softmax(peer / temperature) for peer in peers], axis=0)
        np.testing.assert_allclose(keras.ops.softmax(united / temperature), mean, rtol=1e-5)


@ALL
def test_distillation_ensemble_of_one_equals_teacher(name):
    loss, (teacher, student) = catalogue.DISTILLATION_LOSSES[name].loss(), two()
    expected = loss.call(teacher, student)
    rows = loss.call(loss.ensemble([teacher]), student)
    assert_near(rows.numpy(), expected.numpy(), rounding(name, teacher, student))


@pytest.mark.parametrize("normalize", [False, True])
def test_distillation_ensemble_embeddings_average_squared_distances(normalize):
    """Teachers of different embedding size."""
    wide, narrow = two(1, width=64)[0], 3 * two(2, width=3)[0]
    for kind in (DistanceDistillationLoss, RankDistillationLoss):
        united = kind(normalize=normalize).ensemble([wide, narrow])
        of_each = [
            oracle_distillation.matrix(x, "squared_euclidean", normalize) for x in (wide, narrow)
        ]
        np.testing.assert_allclose(
            oracle_distillation.matrix(united, "squared_euclidean"),
            np.mean(of_each, axis=0),
            rtol=1e-5,
            atol=1e-6,
        )


@cases(lambda case: case.build is DistanceDistillationLoss)
def test_distance_distillation_is_symmetric(name):
    teacher, student = two()
    forth, back = compiled(name)(teacher, student), compiled(name)(student, teacher)
    np.testing.assert_allclose(forth[0], back[0], rtol=2e-6)


@ALL
def test_distillation_batch_permutation_keeps_value_and_gradient(name):
    teacher, student = two()
    order = np.random.default_rng(0).permutation(IMAGES)
    rows, gradient, _ = compiled(name)(teacher, student)
    shuffled_rows, shuffled, _ = compiled(name)(teacher[order], student[order])
    assert_near(shuffled_rows, rows[order], rounding(name, teacher, student)[order])
    scale = np.abs(gradient).max()
    np.testing.assert_allclose(shuffled, gradient[order], rtol=1e-5, atol=2e-6 * scale)


@RELATIONS
def test_distillation_gather_on_one_replica_has_no_effect(name):
    case = catalogue.DISTILLATION_LOSSES[name]
    gathered, alone = (case.loss(gather=gather).call(*two()) for gather in (True, False))
    np.testing.assert_array_equal(gathered, alone)


# --- The teacher is constant


@ALL
def test_distillation_mutual_gradient_equals_one_direction(name):
    """A loss that let the slope through to its teacher would add that of the other direction."""
    case = catalogue.DISTILLATION_LOSSES[name]
    first, second = map(tf.Variable, two(images=8, width=3))
    loss = case.loss()
    with tf.GradientTape() as tape:
        value = loss(first, second) + loss(second, first)
    gradients = tape.gradient(value, [first, second])
    for of, teacher, gradient in ((first, second, gradients[0]), (second, first, gradients[1])):
        expected = oracle.gradient(partial(case.value, teacher.numpy()), of.numpy())
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * scale)


@cases(lambda case: case.build is DistanceDistillationLoss)
def test_distance_distillation_without_stop_gradient_doubles_gradient(name):
    """A plain squared error has twice the gradient, so the test above can notice it."""
    loss = catalogue.DISTILLATION_LOSSES[name].loss()
    first, second = map(tf.Variable, two())
    slopes = []
    for distill in (loss.call, loss.distill):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(distill(first, second) + distill(second, first))
        slopes.append(tape.gradient(value, first).numpy())
    np.testing.assert_allclose(slopes[1], 2 * slopes[0], rtol=1e-4, atol=1e-6)


@ALL
def test_distillation_teacher_gradient_is_none(name):
    teacher, student = map(tf.Variable, two())
    with tf.GradientTape() as tape:
        value = catalogue.DISTILLATION_LOSSES[name].loss()(2 * teacher, student)
    assert tape.gradient(value, teacher) is None


# --- Keras


@ALL
def test_distillation_config_round_trip_is_identical(name):
    loss = catalogue.DISTILLATION_LOSSES[name].loss(name="mine", reduction="sum", dtype="float64")
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()
    assert again.dtype == "float64"
    assert float(again(*two())) == float(loss(*two()))


@RELATIONS
def test_distillation_config_keeps_gather(name):
    loss = catalogue.DISTILLATION_LOSSES[name].loss(gather=True)
    assert keras.losses.deserialize(keras.losses.serialize(loss)).gather


@keras.saving.register_keras_serializable(package="test_distillation")
def manhattan(x):
    return keras.ops.sum(keras.ops.abs(x[:, None] - x[None, :]), axis=-1)


def test_distance_distillation_custom_distance_round_trip():
    loss = DistanceDistillationLoss(distance=manhattan)
    again = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    teacher, student = two()
    difference = np.array([[np.abs(a - b).sum() for b in teacher] for a in teacher]) - np.array(
        [[np.abs(a - b).sum() for b in student] for a in student]
    )
    assert float(again(teacher, student)) == pytest.approx(np.mean(difference**2), rel=1e-5)


@ONE_OF_EACH
def test_distillation_sample_weight_scales_row_losses(name):
    loss, given = catalogue.DISTILLATION_LOSSES[name].loss(reduction="sum"), two()
    rows = loss.call(*given).numpy()
    chosen = loss(*given, sample_weight=np.eye(IMAGES)[4])
    assert float(chosen) == pytest.approx(rows[4], rel=1e-6)
    assert float(loss(*given)) == pytest.approx(rows.sum(), rel=1e-5)


@ONE_OF_EACH
def test_distillation_saved_model_loads_without_custom_objects(name, tmp_path):
    loss = catalogue.DISTILLATION_LOSSES[name].loss()
    teacher, x = two()
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH)])
    model.compile("sgd", loss)
    before = model.test_on_batch(x, teacher)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == loss.get_config()
    assert loaded.test_on_batch(x, teacher) == pytest.approx(before, rel=1e-6)


@pytest.mark.first(1)
@ONE_OF_EACH
def test_distillation_fit_on_stored_outputs_lowers_loss(name):
    keras.utils.set_random_seed(0)
    teacher, x = two(images=24)
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(WIDTH)])
    model.compile(keras.optimizers.Adam(0.05), catalogue.DISTILLATION_LOSSES[name].loss())
    history = model.fit(x, teacher, batch_size=12, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


@pytest.mark.first(1)
@ONE_OF_EACH
def test_distillation_mixed_precision_step_updates_weights(name):
    keras.utils.set_random_seed(0)
    teacher, x = two()
    model = keras.Sequential(
        [keras.Input((WIDTH,)), keras.layers.Dense(WIDTH, dtype="mixed_float16")]
    )
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=64)
    model.compile(scaled, catalogue.DISTILLATION_LOSSES[name].loss(), jit_compile=False)
    before = model.layers[0].get_weights()[0]
    value = model.train_on_batch(x, teacher)
    after = model.layers[0].get_weights()[0]
    assert np.isfinite(value)
    assert np.all(np.isfinite(after))
    assert not np.array_equal(before, after)


# --- Bad input


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(LogitDistillationLoss, 0), r"`temperature` must be positive, got 0. 1 is usual"),
        (partial(LogitDistillationLoss, -1.0), r"`temperature` must be positive, got -1\.0"),
        (partial(LogitDistillationLoss, math.nan), r"`temperature` must be positive, got nan"),
        (partial(LogitDistillationLoss, math.inf), r"`temperature` must be positive, got inf"),
        (
            partial(DistanceDistillationLoss, "manhattan"),
            r"one of euclidean, .*, got 'manhattan'",
        ),
        (
            partial(DistanceDistillationLoss, "precomputed", normalize=True),
            r"must be a distance of embeddings, got .precomputed.. .* normalize and gather",
        ),
        (
            partial(DistanceDistillationLoss, "precomputed", gather=True),
            r"`distance` must be a distance of embeddings",
        ),
        (
            partial(RankDistillationLoss, "firm"),
            r"`mode` must be one of soft, hard, got 'firm'",
        ),
        (
            partial(RankDistillationLoss, alpha=0),
            r"`alpha` must be positive, got 0. 3 is usual",
        ),
        (
            partial(RankDistillationLoss, beta=-2),
            r"`beta` must be positive, got -2. 3 is usual",
        ),
        (
            partial(RankDistillationLoss, list_length=1),
            r"`list_length` must be in \[2, 12\], got 1. 4 is",
        ),
        (partial(RankDistillationLoss, list_length=13), r"in \[2, 12\], got 13"),
        (
            partial(RankDistillationLoss, "hard", list_length=1),
            r"in \[2, inf\], got 1",
        ),
    ],
)
def test_distillation_bad_arguments_raise(build, message):
    with pytest.raises(InputError, match=message):
        build()


def test_rank_distillation_long_hard_list_matches_oracle():
    teacher, student = two(images=20)
    value = float(RankDistillationLoss("hard", list_length=19)(teacher, student))
    expected = oracle_distillation.ranks(teacher, student, "hard", list_length=19).mean()
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "teacher", "student", "message"),
    [
        (
            LogitDistillationLoss(),
            (4, 7),
            (4, 5),
            r"`y_pred` must be of shape \(…, 7\), got \(4, 5\). Train both on",
        ),
        (
            LogitDistillationLoss(),
            (4, 5),
            (3, 5),
            r"`y_pred` must be of shape \(4, …\), got \(3, 5\). Pass one",
        ),
        (
            losses.CosineDistillationLoss(),
            (4, 5),
            (4, 3),
            r"`y_pred` must be of shape \(4, 5\), got \(4, 3\). Distill distances, or",
        ),
        (
            DistanceDistillationLoss(),
            (4, 5),
            (5, 5),
            r"shape \(4, …\), got \(5, 5\). Pass one batch",
        ),
        (RankDistillationLoss(), (8, 5), (6, 5), r"shape \(8, …\), got \(6, 5\). Pass"),
        (
            RankDistillationLoss(),
            (4, 5),
            (4, 5),
            "`batch_size` must be at least 5, got 4. Raise it or lower",
        ),
        (
            RankDistillationLoss("hard", list_length=9),
            (3, 2),
            (3, 2),
            "`batch_size` must be at least 10, got 3",
        ),
        (
            DistanceDistillationLoss(),
            (4, 5, 2),
            (4, 5),
            r"`x` must be of shape \(n, d\), got \(4, 5, 2\)[.] Flatten",
        ),
        (
            DistanceDistillationLoss("precomputed"),
            (4, 5),
            (4, 5),
            r"`x` must be of shape \(n, n\), got \(4, 5\)",
        ),
    ],
)
def test_distillation_mismatched_outputs_raise(loss, teacher, student, message):
    with pytest.raises(InputError, match=message):
        loss.call(np.zeros(teacher, "float32"), np.zeros(student, "float32"))
