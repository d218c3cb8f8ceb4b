"""Layers that compare pairs, and batches of pairs."""

import math

import keras
import numpy as np
import oracle_pairs
import pytest
import tensorflow as tf
from PIL import Image

from keras_reid.data import PersonImages, pair_batches, pk_batches, pk_steps
from keras_reid.errors import InputError
from keras_reid.layers import MatchingGate, PairDistance, PairMetric
from keras_reid.losses import QuadrupletLoss

SIZE = (8, 4)


def two_maps(seed: int = 0, scale: float = 1.0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b = (scale * rng.normal(0.5, 1, (3, 5, 4, 6)).astype("float32") for _ in range(2))
    b[:, 2] = a[:, 2]  # a stripe that both have
    a[0, 0, 0] = 0  # a position where nothing fires
    return [a, b]


def points(n: int = 7, d: int = 5, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, d)).astype("float32")


def gate_with(sigma: np.ndarray) -> MatchingGate:
    gate = MatchingGate()
    gate.build([(None, 5, 4, len(sigma))] * 2)
    gate.set_weights([np.log(sigma)])
    return gate


def metric_with(kernel: np.ndarray, bias: float) -> PairMetric:
    metric = PairMetric()
    metric.build((None, len(kernel)))
    metric.set_weights([np.asarray(kernel, "float32"), np.float32(bias)])
    return metric


def compiled(layer: keras.layers.Layer, jit_compile: bool | None) -> keras.layers.Layer:
    return layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)


def gradients(layer: keras.layers.Layer, *inputs: np.ndarray) -> list[np.ndarray]:
    """Return gradients of a weighted sum for every input and weight of the layer."""
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        out = layer(inputs) if isinstance(layer, MatchingGate) else layer(*inputs)
        total = sum(
            tf.reduce_sum(
                tf.cast(y, tf.float32) * tf.reshape(tf.range(1.0, tf.size(y) + 1), y.shape)
            )
            for y in tf.nest.flatten(out)
        )
    found = tape.gradient(total, [*inputs, *layer.trainable_variables])
    return [tf.cast(gradient, tf.float32).numpy() for gradient in found]


# --- the gate


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_matching_gate_matches_oracle(jit_compile: bool | None) -> None:
    sigma = np.array([0.2, 0.5, 1, 1.5, 3, 10])
    run = compiled(gate_with(sigma), jit_compile)
    for scale in (0.1, 1.0, 10.0):
        expected = oracle_pairs.matching_gate(*two_maps(scale=scale), sigma)
        for ours, theirs in zip(run(two_maps(scale=scale)), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_matching_gate_small_maps_returns_expected_values() -> None:
    """One stripe of two positions: means 1 and 2 apart by 1 = sigma, and 3 and 3."""
    a = np.array([[[[0.0, 3.0], [2.0, 3.0]]]], "float32")
    b = np.array([[[[2.0, 2.0], [2.0, 4.0]]]], "float32")
    gated, _ = MatchingGate(epsilon=1e-12)([a, b])
    opened = np.array([2 * (1 + math.exp(-1)), 3 * 2])
    np.testing.assert_allclose(gated[0, 0, 1], opened / np.linalg.norm(opened), rtol=1e-6)
    np.testing.assert_allclose(gated[0, 0, 0], [0, 1], rtol=1e-6)


def test_matching_gate_swapped_inputs_swaps_outputs() -> None:
    a, b = two_maps()
    gate = gate_with(np.linspace(0.3, 2, 6))
    for one, other in zip(gate([a, b]), reversed(gate([b, a])), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("log_sigma", [-200.0, -20.0, 0.0, 20.0])
def test_matching_gate_extreme_sigma_is_finite(log_sigma: float) -> None:
    gate = gate_with(np.ones(6))
    gate.set_weights([np.full(6, log_sigma)])
    for scale in (1e-3, 1.0, 1e3):
        maps = two_maps(scale=scale)
        assert all(np.isfinite(x).all() for x in [*gate(maps), *gradients(gate, *maps)])


def test_matching_gate_sigma_has_gradient() -> None:
    *_, slope = gradients(gate_with(np.ones(6)), *two_maps())
    assert (np.abs(slope) > 1e-3).all()


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_matching_gate_half_precision_computes_in_float32(dtype: str) -> None:
    """Channels around 200 sum up to more than half precision holds."""
    a, b = (np.round(x) for x in two_maps(scale=200))
    expected = MatchingGate(sigma=300.0)([a, b])
    gate = MatchingGate(sigma=300.0, dtype=dtype)
    for half, full in zip(gate([a, b]), expected, strict=True):
        assert half.dtype.name == dtype.removeprefix("mixed_")
        np.testing.assert_allclose(tf.cast(half, tf.float32), full, atol=6e-3)
    assert all(np.isfinite(gradient).all() for gradient in gradients(gate, a, b))


# --- distances of pairs, given and learned


def test_pair_distance_matches_oracle() -> None:
    x, y = points(), points(seed=1)
    y[0], y[1] = 3 * x[0], -x[1]
    layer = PairDistance()
    np.testing.assert_allclose(layer(x, y), oracle_pairs.pair_distance(x, y), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layer(x, x), np.zeros(7))
    assert all(np.isfinite(gradient).all() for gradient in gradients(layer, x, x))
    assert PairDistance(dtype="mixed_float16")(x, y).dtype == tf.float32


@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_pair_metric_matches_oracle(jit_compile: bool | None) -> None:
    kernel, bias = np.array([0.7, -0.3, 0.1, 0.0, 1.5], "float32"), -0.4
    x, y = points(), points(4, seed=1)
    x[1] = x[0]
    run = compiled(metric_with(kernel, bias), jit_compile)
    expected = oracle_pairs.pair_metric(x, x, kernel, bias)
    np.testing.assert_allclose(run(x), expected, rtol=2e-6)
    np.testing.assert_allclose(run(x, y), oracle_pairs.pair_metric(x, y, kernel, bias), rtol=2e-6)
    np.testing.assert_array_equal(np.diag(run(x)), np.full(7, run(x)[0, 1]))


def test_pair_metric_initial_weights_give_mean_squared_difference() -> None:
    x = points()
    expected = oracle_pairs.pair_metric(x, x, np.full(5, 1 / 5), 0.0)
    np.testing.assert_allclose(PairMetric()(x), expected, rtol=2e-6)


def test_pair_metric_near_pairs_far_from_origin_is_accurate() -> None:
    x = 1_000_003.0 + np.array([[0, 0], [1, 0], [0, 2], [3, 1]])
    kernel = np.array([0.7, 0.3], "float32")
    expected = oracle_pairs.pair_metric(x, x, kernel, -1.0)
    np.testing.assert_allclose(metric_with(kernel, -1.0)(x), expected, rtol=1e-5)


def test_pair_metric_diagonal_depends_on_bias_only() -> None:
    found = metric_with(np.linspace(-1, 1, 5), 0.5)(points(scale=1e7))
    np.testing.assert_allclose(np.diag(found), 1 / (1 + math.exp(-0.5)), rtol=2e-7)


def test_pair_metric_small_input_returns_expected_values() -> None:
    """Logits [0, 0], [0, ln 3] and [ln 3, 0] of "same" and "different"."""
    metric = metric_with([math.log(3), -math.log(3)], 0.0)
    found = metric(np.zeros((1, 2)), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    np.testing.assert_allclose(found, [[0.5, 0.75, 0.25]], rtol=1e-6)


def test_quadruplet_loss_precomputed_metric_returns_expected_value() -> None:
    """Squares of 1/2, 3/4 and 1/4: [1/4 − 9/16 + 1/2]₊ + [1/4 − 1/16 + 1/4]₊."""
    g = np.full((4, 4), 0.75)
    g[0, 1] = g[1, 0] = 0.5
    g[2, 3] = g[3, 2] = 0.25
    loss = QuadrupletLoss(0.5, 0.25, distance="precomputed")
    np.testing.assert_allclose(loss(np.array([0, 0, 1, 2]), g**2), 0.625, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_pair_metric_extreme_scale_has_finite_gradients(scale: float, dtype: str) -> None:
    x = points(scale=scale)
    if dtype == "mixed_float16":
        x = np.clip(x, -6e4, 6e4)
    x[1] = x[0]
    metric = PairMetric(dtype=dtype)
    found = metric(x)
    assert found.dtype == tf.float32
    assert np.isfinite(found).all()
    assert all(np.isfinite(gradient).all() for gradient in gradients(metric, x))


def test_pair_metric_gradient_matches_oracle_differences() -> None:
    kernel, bias, x = np.array([0.7, -0.3, 0.1, 0.2, 1.5]), -0.4, points()
    weights = np.arange(1.0, 50).reshape(7, 7)
    of_x, of_kernel, of_bias = gradients(metric_with(kernel, bias), x)
    step = 1e-5

    def total(x: np.ndarray, kernel: np.ndarray, bias: float) -> float:
        return float((weights * oracle_pairs.pair_metric(x, x, kernel, bias)).sum())

    def slope(at: np.ndarray, value) -> np.ndarray:
        moves = np.eye(at.size).reshape(-1, *at.shape) * step
        ends = [(value(at + move), value(at - move)) for move in moves]
        return np.array([(up - down) / (2 * step) for up, down in ends]).reshape(at.shape)

    x = x.astype("float64")
    np.testing.assert_allclose(
        of_x, slope(x, lambda x: total(x, kernel, bias)), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(of_kernel, slope(kernel, lambda k: total(x, k, bias)), rtol=1e-4)
    np.testing.assert_allclose(
        of_bias, slope(np.array(bias), lambda b: total(x, kernel, float(b))), rtol=1e-4
    )


def test_pair_layers_save_and_load_keeps_outputs(tmp_path) -> None:
    maps = [keras.Input((5, 4, 6)) for _ in range(2)]
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in MatchingGate(sigma=0.5)(maps)]
    outputs = {"given": PairDistance()(*pooled), "learned": PairMetric()(*pooled)}
    model = keras.Model(maps, {**outputs, "batch": PairMetric()(pooled[0])})
    model.set_weights([weight + 0.25 for weight in model.get_weights()])
    model.save(tmp_path / "pairs.keras")
    loaded = keras.saving.load_model(tmp_path / "pairs.keras")
    expected = model(two_maps())
    assert expected["batch"].shape == expected["learned"].shape == (3, 3)
    for key, value in loaded(two_maps()).items():
        np.testing.assert_array_equal(value, expected[key])
    for layer in (MatchingGate(0.5, 1e-3, dtype="mixed_float16"), PairDistance(), PairMetric()):
        assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MatchingGate(sigma=0), "`sigma` must be positive, got 0"),
        (lambda: MatchingGate(epsilon=-1.0), "`epsilon` must be positive, got -1.0"),
        (lambda: MatchingGate()([points(), points()]), r"shape \(b, h, w, d\), got \(7, 5\)"),
        (lambda: PairMetric()(two_maps()[0]), r"`x` must be .*, got \(3, 5, 4, 6\)"),
        (lambda: PairMetric()(points(), points(d=4)), r"`y` must be .*5\), got \(7, 4\)"),
    ],
)
def test_pair_layers_invalid_input_raises(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


# --- batches of pairs


@pytest.fixture
def images(tmp_path) -> PersonImages:
    """14 PNG files of 5 identities; every pixel of a file is its row."""
    identity = np.array(list("aaabbccddddeee"))
    paths = [tmp_path / f"{row:02}.png" for row in range(14)]
    for row, path in enumerate(paths):
        Image.fromarray(np.full((*SIZE, 3), row, np.uint8)).save(path)
    return PersonImages(paths, identity, None)


def rows_of(batch: tuple) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (first, second), same = batch
    return first[:, 0, 0, 0], second[:, 0, 0, 0], same


@pytest.mark.first(1)
def test_pair_batches_pairs_follow_pk_batches(images: PersonImages) -> None:
    arguments = {"image_size": SIZE, "augment": "none", "seed": 3}
    steps = pk_steps(images, 4, 2)
    stream = pair_batches(images, 8, **arguments)
    pk = pk_batches(images, 4, 2, **arguments)
    batches = zip(stream.take(2 * steps), pk.take(2 * steps), strict=True)
    for batch, (pixels, _) in batches:
        first, second, same = rows_of(tf.nest.map_structure(np.asarray, batch))
        pairs = pixels.numpy()[:, 0, 0, 0].reshape(4, 2)
        np.testing.assert_array_equal(same, [1, 1, 1, 1, 0, 0, 0, 0])
        for p in range(4):
            assert (first[p], second[p]) == tuple(pairs[p])
            assert (first[4 + p], second[4 + p]) == (pairs[p, 0], pairs[(p + 1) % 4, 1])


def test_pair_batches_labels_are_correct_and_pairs_are_distinct(images: PersonImages) -> None:
    seen = set()
    for batch in pair_batches(images, 6, SIZE, "none").take(40).as_numpy_iterator():
        first, second, same = rows_of(batch)
        np.testing.assert_array_equal(images.identity[first] == images.identity[second], same == 1)
        assert (first != second).all()
        seen.update(first, second)
    assert seen == set(range(14))


def test_pair_batches_has_static_shapes_and_repeats_by_seed(images: PersonImages) -> None:
    arguments = {"pairs": 4, "image_size": SIZE, "seed": 5, "cache": "memory"}
    stream = pair_batches(images, **arguments)
    (first, second), same = stream.element_spec
    assert first == second == tf.TensorSpec((4, *SIZE, 3), tf.uint8)
    assert same == tf.TensorSpec((4,), tf.int32)
    steps = pk_steps(images, 2, 2)
    whole = list(stream.take(3 * steps).as_numpy_iterator())
    again = pair_batches(images, first_epoch=2, **arguments).take(steps).as_numpy_iterator()
    tf.nest.map_structure(np.testing.assert_array_equal, list(again), whole[2 * steps :])


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (2, "even and at least 4.*got 2"),
        (7, "got 7"),
        (12, r"`num_identities_per_batch` must be in \[1, 5\], got 6"),
    ],
)
def test_pair_batches_invalid_pair_count_raises(
    images: PersonImages, pairs: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pair_batches(images, pairs, SIZE)


def test_pair_batches_lone_identity_or_no_images_raises(images: PersonImages) -> None:
    with pytest.raises(InputError, match="at least two images of each identity, got one of b"):
        pair_batches(images[np.arange(14) != 3], 4, SIZE)
    with pytest.raises(InputError, match="`images` must be at least 1"):
        pair_batches(images[:0], 4, SIZE)
