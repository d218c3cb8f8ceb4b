"""Pair verifier: shared weights, symmetry, gate positions, saving and training."""

import keras
import numpy as np
import oracle_pairs
import pytest
import tensorflow as tf

from keras_reid import data, models
from keras_reid.errors import InputError
from keras_reid.losses import ContrastiveLoss
from keras_reid.models import backbones, pair

SIZE = (64, 32)


def images(n: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)


def build(**arguments) -> keras.Model:
    keras.utils.set_random_seed(1)
    arguments = {"backbone": "tiny", "image_size": SIZE, "weights": "none", **arguments}
    return models.build_pair_verifier(**arguments)


def distances(model: keras.Model, *pair: np.ndarray, **arguments) -> np.ndarray:
    return model(list(pair), **arguments)["distance"].numpy()


@pytest.mark.parametrize("arguments", [{}, {"pooling": "gem"}, {"pooling": "max", "width": 16}])
def test_pair_verifier_distance_matches_gated_features(arguments: dict) -> None:
    model = build(**arguments)
    x, y = images(), images(seed=1)
    model([x, y], training=True)  # moves the statistics
    head, tail = model.get_layer("head"), model.get_layer("tail")
    sigma = np.linspace(0.05, 0.5, head.output.shape[-1])
    model.get_layer("gate").set_weights([np.log(sigma)])
    gated = oracle_pairs.matching_gate(head(x), head(y), sigma)
    features = [tail(g.astype("float32")).numpy() for g in gated]
    assert features[0].shape == (4, arguments.get("width", 128))
    expected = oracle_pairs.pair_distance(*features)
    np.testing.assert_allclose(distances(model, x, y), expected, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_pair_verifier_swapped_images_gives_same_distance(training: bool) -> None:
    """Distances do not change, nor in training the statistics of batch normalization."""
    x, y = images(), images(seed=1) // 2
    one, other = build(), build()
    there = distances(one, x, y, training=training)
    np.testing.assert_allclose(there, distances(other, y, x, training=training), atol=1e-5)
    assert (there > 1e-3).all()
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_pair_verifier_same_image_has_zero_distance() -> None:
    np.testing.assert_allclose(distances(build(), images(), images()), 0, atol=1e-6)


def test_pair_verifier_shares_backbone_weights() -> None:
    backbone = backbones.build("tiny", "none", SIZE, last_stride=1)
    widths = build().get_layer("head").output.shape[-1]
    assert build().count_params() == backbone.count_params() + widths


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["tiny", "mobilenetv2"])
def test_pair_split_halves_match_backbone(name: str) -> None:
    model = backbones.build(name, "none", SIZE, last_stride=1)
    before, behind = pair.split(model)
    pixels = images().astype("float32")
    np.testing.assert_allclose(behind(before(pixels)), model(pixels), rtol=1e-4, atol=1e-5)
    assert before.count_params() > 0
    assert behind.count_params() > 0
    assert before.count_params() + behind.count_params() == model.count_params()


def test_pair_split_at_named_layer_cuts_there() -> None:
    backbone = backbones.build("tiny", "none", SIZE)
    third = [layer for layer in backbone.layers if isinstance(layer, keras.layers.ReLU)][2]
    before, _ = pair.split(backbone, third.name)
    assert before.output.shape[1:] == third.output.shape[1:]


@pytest.mark.nightly
def test_pair_verifier_mobilenetv2_gate_cuts_at_named_layer() -> None:
    gate = "block_6_project_BN"
    head = build(backbone="mobilenetv2", gate=gate).get_layer("head")
    assert head.output.shape[1:] == (4, 2, 64)


def test_pair_split_shortcut_layer_raises() -> None:
    pixels = keras.Input((8, 4, 3))
    x = keras.layers.Conv2D(3, 1, name="first")(pixels)
    y = keras.layers.Conv2D(3, 1, name="inside")(x)
    y = keras.layers.Conv2D(3, 1, name="also_inside")(y)
    y = keras.layers.Add(name="sum")([x, y])
    model = keras.Model(pixels, keras.layers.ReLU(name="last")(y))
    before, behind = pair.split(model)
    assert before.layers[-1].name == "first"
    x = np.random.default_rng(0).normal(size=(2, 8, 4, 3)).astype("float32")
    np.testing.assert_allclose(behind(before(x)), model(x), rtol=1e-5)
    with pytest.raises(InputError, match="`gate` must be one of first, sum, got 'inside'"):
        pair.split(model, "inside")


@pytest.mark.first(1)
@pytest.mark.parametrize("backbone", ["tiny", "mobilenetv2"])
def test_pair_verifier_save_and_load_keeps_distances(backbone: str, tmp_path) -> None:
    model = build(backbone=backbone, width=8)
    x, y = images(), images(seed=1)
    model([x, y], training=True)
    model.save(tmp_path / "verifier.keras")
    loaded = keras.saving.load_model(tmp_path / "verifier.keras")
    np.testing.assert_allclose(distances(loaded, x, y), distances(model, x, y), atol=1e-6)


def test_pair_verifier_every_weight_has_gradient() -> None:
    model = build(pooling="gem", width=8)
    with tf.GradientTape() as tape:
        distance = model([images(), images(seed=1)], training=True)["distance"]
        loss = tf.reduce_sum(distance * [1.0, 2.0, 3.0, 4.0])
    found = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
        assert np.abs(gradient).max() > 0, variable.path


@pytest.mark.first(1)
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_pair_verifier_half_precision_distances_are_float32(dtype: str) -> None:
    policy = keras.mixed_precision.global_policy()
    full = distances(build(), images(), images(seed=1))
    try:
        keras.mixed_precision.set_global_policy(dtype)
        model = build()
        found = distances(model, images(), images(seed=1))
        matrix = models.pair_distances(model, images(), images(seed=1))
    finally:
        keras.mixed_precision.set_global_policy(policy)
    assert found.dtype == matrix.dtype == np.float32
    np.testing.assert_allclose(found, full, atol=0.02)
    np.testing.assert_allclose(np.diag(matrix), found, atol=0.02)


@pytest.mark.first(1)
@pytest.mark.parametrize("batch_size", [4, 64])
def test_pair_distances_matrix_matches_single_pairs(batch_size: int) -> None:
    model = build()
    query, gallery = images(3), images(5, seed=1)
    expected = [[distances(model, q[None], g[None])[0] for g in gallery] for q in query]
    found = models.pair_distances(model, query, gallery, batch_size)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.nightly
def test_pair_verifier_contrastive_training_lowers_loss(pedestrians) -> None:
    train = data.load("synthetic", pedestrians).train
    batches = data.pair_batches(train, 16, SIZE, "none", seed=0, cache="memory")
    model = build()
    model.compile(keras.optimizers.Adam(1e-3), {"distance": ContrastiveLoss(pairs="given")})
    run = {"steps_per_epoch": 5, "epochs": 8, "verbose": 0, "shuffle": False}
    history = model.fit(batches, **run).history["loss"]
    assert np.mean(history[-2:]) < 0.7 * history[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pooling": "median"}, "`pooling` must be one of avg, avg_max, gem, max, got 'median'"),
        ({"width": 0}, "`width` must be at least 1"),
        ({"gate": "nowhere"}, "`gate` must be one of .*, got 'nowhere'"),
        ({"backbone": "resnet51"}, "resnet51"),
    ],
)
def test_build_pair_verifier_invalid_arguments_raises(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**arguments)


def test_pair_distances_invalid_model_raises() -> None:
    with pytest.raises(InputError, match="must be a pair verifier, got the model embedder"):
        models.pair_distances(models.build("tiny", None, SIZE, weights="none"), images(), images())
