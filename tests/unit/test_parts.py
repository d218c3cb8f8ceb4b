"""Stripe and part pooling, and heads with local features."""

from pathlib import Path

import keras
import numpy as np
import oracle_parts
import pytest
import tensorflow as tf

from keras_reid import inference, layers, models
from keras_reid.errors import InputError
from keras_reid.models import heads

SIZE = (64, 32)  # a map of 8×4 of the backbone tiny
BOTH = ("embedding", "local")


def images(n=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)


def build(*more, identities=5, **options):
    keras.utils.set_random_seed(0)
    return models.build("tiny", identities, SIZE, weights="none", heads=more, **options)


def maps_of(model):
    return keras.Model(model.input, model.get_layer("pool").input)(images()).numpy()


def column(*values):
    """A map of one column and one channel."""
    return np.array(values, "float32").reshape(1, -1, 1, 1)


# --- Layers


def test_stripe_and_part_pooling_three_stripes_returns_expected_means():
    for layer in (layers.StripePooling(3), layers.PartPooling(3)):
        np.testing.assert_allclose(np.ravel(layer(column(0, 1, 2, 3, 4, 5))), [0.5, 2.5, 4.5])


def test_stripe_pooling_indivisible_height_shares_rows():
    np.testing.assert_allclose(
        np.ravel(layers.StripePooling(3)(column(0, 1, 2, 3, 4))), [0.5, 2, 3.5]
    )
    largest = layers.StripePooling(2, "max")(column(0, 9, 2, 3, 4))
    np.testing.assert_array_equal(np.ravel(largest), [9, 4])


def test_part_pooling_equal_assignment_returns_global_mean():
    layer = layers.PartPooling(2)
    layer.build((None, 4, 1, 1))
    layer.kernel.assign(np.zeros((1, 2)))
    layer.refined.assign(1.0)
    np.testing.assert_allclose(np.ravel(layer(column(0, 1, 2, 3))), [1.5, 1.5])


def test_part_pooling_refined_to_stripes_matches_stripe_means():
    """`mean_hw p · P · f` keeps the scale of the mean over a stripe."""
    x = np.random.default_rng(0).normal(size=(2, 6, 3, 4)).astype("float32")
    x[..., 0] = np.repeat(np.arange(3), 2)[:, None]  # a channel with the index of the stripe
    layer = layers.PartPooling(3)
    layer.build(x.shape)
    kernel = np.zeros((4, 3))
    kernel[0] = [-200, 0, 200]
    layer.kernel.assign(kernel)
    layer.bias.assign([100, 0, -300])
    layer.refined.assign(1.0)
    np.testing.assert_allclose(layer(x), oracle_parts.stripes(x, 3), rtol=1e-5, atol=1e-6)


def test_part_pooling_assignment_has_gradient_only_if_refined():
    layer, x = layers.PartPooling(2), np.random.default_rng(0).normal(size=(2, 4, 3, 5))
    for refined in (0.0, 1.0):
        layer.build(x.shape) if not layer.built else None
        layer.refined.assign(refined)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(layer(x) ** 2)
        slopes = tape.gradient(value, layer.trainable_variables)
        assert len(slopes) == 2
        assert np.any(slopes[0] != 0) == bool(refined)


def test_part_pooling_refined_flag_is_saved_and_not_trainable(tmp_path):
    model = build(heads.PartHead(4, 16, refinable=True))
    layer = model.get_layer("part_pool")
    layer.refined.assign(1.0)
    assert "refined" not in [variable.name for variable in layer.trainable_variables]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.get_layer("part_pool").refined.numpy()) == 1
    np.testing.assert_array_equal(loaded(images())["embedding"], model(images())["embedding"])


@pytest.mark.parametrize("build_layer", [layers.StripePooling, layers.PartPooling])
def test_pooling_layers_invalid_stripe_count_raises(build_layer):
    for count in (0, 5):
        with pytest.raises(
            InputError, match=rf"must be in \[1, 4\], got {count}[.].*last_stride=1"
        ):
            build_layer(count)(np.zeros((1, 4, 2, 3)))


def test_stripe_pooling_unknown_mode_raises():
    with pytest.raises(InputError, match="`pooling` must be one of avg, max, got 'gem'"):
        layers.StripePooling(2, "gem")


def test_part_classifiers_zero_identities_raises():
    with pytest.raises(InputError, match=r"`num_identities` must be at least 1, got 0"):
        layers.PartClassifiers(0)


# --- Heads


def weights_of(model, layer):
    return model.get_layer(layer).get_weights()


def normalized(x, gamma, beta, mean, variance, epsilon=1e-3):
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def shaken(model):
    """Other weights than at first, so that scales and shifts show."""
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0, 0.2, w.shape) for w in model.get_weights()])
    return model


def test_local_head_conv_bn_relu_matches_oracle():
    model = shaken(build(heads.LocalHead(4, 16)))
    pooled = oracle_parts.stripes(maps_of(model), 4)
    x = pooled @ weights_of(model, "local_conv")[0]
    expected = np.maximum(normalized(x, *weights_of(model, "local_bn")), 0)
    np.testing.assert_allclose(model(images())["local"], expected, rtol=1e-4, atol=1e-5)


def test_local_head_bn_relu_conv_matches_oracle():
    model = shaken(build(heads.LocalHead(4, 16, "max", "bn_relu_conv", normalize=True)))
    maps = np.maximum(normalized(maps_of(model), *weights_of(model, "local_bn")), 0)
    x = oracle_parts.stripes(maps, 4, "max") @ weights_of(model, "local_conv")[0]
    expected = x / np.linalg.norm(x, axis=-1, keepdims=True)
    np.testing.assert_allclose(model(images())["local"], expected, rtol=1e-4, atol=1e-5)


def test_part_head_outputs_match_oracle():
    model = shaken(build(heads.PartHead(4, 16)))
    pooled = oracle_parts.stripes(maps_of(model), 4)
    unit = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
    out = model(images())
    np.testing.assert_allclose(out["embedding"], unit.reshape(4, -1), rtol=1e-4, atol=1e-6)
    x = pooled @ weights_of(model, "part_conv")[0]
    parts = np.maximum(normalized(x, *weights_of(model, "part_bn")), 0)
    np.testing.assert_allclose(out["parts"], parts, rtol=1e-4, atol=1e-5)
    logits = oracle_parts.part_logits(parts, weights_of(model, "part_logits")[0])
    np.testing.assert_allclose(out["part_logits"], logits, rtol=1e-4, atol=1e-4)
    assert set(out) == {"features", "embedding", "parts", "part_logits"}


def test_part_head_dropout_applies_in_training_only():
    model = build(heads.PartHead(4, 16, dropout=0.5))
    assert not np.allclose(model(images(), training=True)["parts"], model(images())["parts"])
    assert model.get_layer("part_dropout").rate == 0.5


def test_part_head_without_identities_omits_classifiers():
    assert set(build(heads.PartHead(2, 16), identities=None).output) == {
        "features",
        "embedding",
        "parts",
    }


def test_heads_half_precision_outputs_are_float32():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = build(heads.LocalHead(4, 16), heads.PartHead(2, 16))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {output.dtype for output in model.output.values()} == {"float32"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: heads.LocalHead(order="relu"), r"conv_bn_relu, bn_relu_conv, got 'relu'"),
        (lambda: heads.LocalHead(width=0), r"`width` must be at least 1, got 0"),
        (lambda: heads.PartHead(dropout=1.0), r"`dropout` must be in \[0, 1\), got 1.0"),
        (lambda: heads.PartHead(width=0), r"`width` must be at least 1, got 0"),
        (lambda: build(heads.LocalHead(9)), r"in \[1, 8\], got 9[.] The feature map has 8 rows"),
        (
            lambda: build(heads.LocalHead(2, pooling="min")),
            "`pooling` must be one of avg, max",
        ),
        (
            lambda: build(heads.LocalHead(2), heads.LocalHead(4)),
            r"Two heads have the outputs \['local'\]",
        ),
    ],
)
def test_heads_invalid_arguments_raises(make, message):
    with pytest.raises(InputError, match=message):
        make()


# --- Stripes without training, and embedding both


@pytest.mark.parametrize(("count", "pooling"), [(None, "max"), (4, "max"), (3, "avg")])
def test_stripes_any_model_pools_feature_map(count, pooling):
    model = build()
    view = models.stripes(model, count, pooling)
    pooled = oracle_parts.stripes(maps_of(model), count or 8, pooling)
    expected = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
    out = view(images())
    np.testing.assert_allclose(out["local"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(out["embedding"], model(images())["embedding"])
    before = view(images())["local"].numpy()
    shaken(model)
    assert not np.allclose(view(images())["local"], before), "the weights are shared"


def test_stripes_model_with_local_head_replaces_local_output(tmp_path: Path):
    model = build(heads.LocalHead(4, 16))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert models.stripes(loaded).output["local"].shape == (None, 8, 128)


def test_stripes_ensemble_raises():
    with pytest.raises(InputError, match=r"layer 'pool'.*Of an ensemble, pass one member"):
        models.stripes(models.ensemble([build(), build()]))


def test_embedder_local_returns_both_features():
    model = build(heads.LocalHead(4, 16))
    both = inference.load(model, outputs=BOTH)([images(3), images(2, seed=1)])
    plain = inference.load(model)([images(3), images(2, seed=1)])
    np.testing.assert_allclose(both["embedding"], plain, rtol=1e-6)
    local = np.concatenate([model(images(3))["local"], model(images(2, seed=1))["local"]])
    expected = local / np.linalg.norm(local, axis=-1, keepdims=True)
    np.testing.assert_allclose(both["local"], expected, rtol=1e-4, atol=1e-6)


def test_embedder_flip_adds_mirror_image_to_local_features():
    model = build(heads.LocalHead(4, 16))
    both = inference.load(model, flip=True, outputs=BOTH)([images()])
    total = model(images())["local"] + model(images()[:, :, ::-1])["local"]
    expected = total / np.linalg.norm(total, axis=-1, keepdims=True)
    np.testing.assert_allclose(both["local"], expected, rtol=1e-4, atol=1e-6)
    mirrored = inference.load(model, flip=True, outputs=BOTH)([images()[:, :, ::-1]])
    np.testing.assert_allclose(mirrored["local"], both["local"], rtol=1e-4, atol=1e-5)


def test_embedder_local_without_local_output_raises():
    with pytest.raises(InputError, match=r"named 'local'.*LocalHead\(\)\], or use .*stripes"):
        inference.load(build(), outputs=BOTH)
