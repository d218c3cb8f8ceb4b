"""MixStyle, instance normalization and training that starts from the weights of a run."""

import keras
import numpy as np
import pytest

from keras_reid import layers, losses, models
from keras_reid.errors import InputError
from keras_reid.models import backbones
from keras_reid.training import Run, build, recipes

SIZE = (64, 32)


def statistics(x):
    """Mean and deviation over the positions of each map, (b, c) both, in float64."""
    x = np.asarray(x, "float64")
    return x.mean((1, 2)), np.sqrt(x.var((1, 2)) + 1e-6)


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 3, (8, 1, 1, 4))
    return (scale * rng.normal(1, 1, (8, 6, 3, 4))).astype("float32")


def test_mixstyle_output_interpolates_statistics_of_two_images(maps):
    """And is the normalized map of its own image in it: written down a second time, in float64."""
    mixed = layers.MixStyle(1.0, alpha=2.0, seed=3)(maps, training=True)
    means, deviations = statistics(maps)
    mean, deviation = statistics(mixed)
    content = (maps - means[:, None, None]) / deviations[:, None, None]
    again = (np.asarray(mixed) - mean[:, None, None]) / deviation[:, None, None]
    np.testing.assert_allclose(again, content, atol=1e-3)
    others = 0
    for i in range(8):
        fits = []
        for j in range(8):
            ways = np.concatenate([means[j] - means[i], deviations[j] - deviations[i]])
            gone = np.concatenate([mean[i] - means[i], deviation[i] - deviations[i]])
            if j == i:
                fits.append(np.abs(gone).max() < 1e-3)
            else:
                share = gone @ ways / (ways @ ways)
                fits.append(-1e-3 <= share <= 1.001 and np.allclose(gone, share * ways, atol=2e-3))
        assert any(fits)
        others += not fits[i]
    assert others >= 5  # with its own style only who drew itself


def test_mixstyle_is_random_in_training_and_identity_at_inference(maps):
    layer = layers.MixStyle(0.5, seed=0)
    np.testing.assert_array_equal(layer(maps), maps)
    np.testing.assert_array_equal(layer(maps, training=False), maps)
    seen = [np.abs(np.asarray(layer(maps, training=True)) - maps).max() for _ in range(60)]
    unchanged = sum(change == 0 for change in seen)
    assert 15 <= unchanged <= 45  # 30 ± 4 σ
    assert len({round(float(change), 4) for change in seen if change > 0}) > 20
    never = layers.MixStyle(0.0)
    np.testing.assert_array_equal(never(maps, training=True), maps)


def test_mixstyle_statistics_have_no_gradient(maps):
    """The gradient of a mixed map by the map itself is σ'/σ, one number for a map's channel."""
    import tensorflow as tf

    x = tf.constant(maps)
    layer = layers.MixStyle(1.0, alpha=2.0, seed=3)
    with tf.GradientTape() as tape:
        tape.watch(x)
        mixed = layer(x, training=True)
    slope = tape.gradient(mixed, x).numpy()
    _, before = statistics(maps)
    _, after = statistics(mixed)
    np.testing.assert_allclose(
        slope, np.broadcast_to((after / before)[:, None, None], slope.shape), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"probability": 1.1}, r"`probability` must be in \[0, 1\], got 1.1"),
        ({"probability": float("nan")}, r"`probability` must be in \[0, 1\], got nan"),
        ({"alpha": 0}, "`alpha` must be positive, got 0"),
        ({"epsilon": 0}, "`epsilon` must be positive, got 0"),
    ],
)
def test_mixstyle_bad_arguments_raise(arguments, message):
    with pytest.raises(InputError, match=message):
        layers.MixStyle(**arguments)


def nested(model):
    """The layers of a model and of the models in it."""
    for layer in model.layers:
        yield from nested(layer) if isinstance(layer, keras.Model) else [layer]


@pytest.mark.first(1)
@pytest.mark.parametrize("name", ["tiny", "mobilenetv2", "resnet50"])
def test_backbone_mixstyle_is_in_early_stages_and_keeps_inference(name):
    plain = backbones.build(name, "none", SIZE)
    mixing = backbones.build(name, "none", SIZE, mixstyle=1.0)
    mixing.set_weights(plain.get_weights())

    found = [layer for layer in nested(mixing) if isinstance(layer, layers.MixStyle)]
    assert [SIZE[0] // layer.output.shape[1] for layer in found] == [4, 8]
    pixels = np.random.default_rng(1).uniform(0, 255, (4, *SIZE, 3)).astype("float32")
    np.testing.assert_array_equal(mixing(pixels), plain(pixels))
    difference = np.asarray(mixing(pixels, training=True)) - plain(pixels, training=True)
    assert np.abs(difference).max() > 0.1


@pytest.mark.parametrize(("name", "share"), [("tiny", 0.5), ("mobilenetv2", 1.0)])
def test_backbone_instance_norm_normalizes_early_maps_per_image(name, share):
    """The layer removes linear changes of the maps, such as brightness and contrast."""
    plain = backbones.build(name, "none", SIZE)
    model = backbones.build(name, "none", SIZE, instance_norm=share)
    found = [one for one in nested(model) if isinstance(one, keras.layers.GroupNormalization)]
    assert [SIZE[0] // layer.output.shape[1] for layer in found] == [4, 8]
    maps = np.random.default_rng(1).normal(size=(2, *found[0].output.shape[1:]))
    normal = np.asarray(found[0](maps))
    mean, variance = maps.mean((1, 2), keepdims=True), maps.var((1, 2), keepdims=True)
    expected = (maps - mean) / np.sqrt(variance + found[0].epsilon)
    np.testing.assert_allclose(normal, expected, atol=1e-5)
    np.testing.assert_allclose(found[0](3 * maps + 2), normal, atol=1e-2)
    assert len(model.weights) == len(plain.weights) + 4
    halved = [one for one in nested(model) if isinstance(one, keras.layers.Concatenate)]
    assert len(halved) == (2 if share < 1 else 0)
    for norm, whole in zip(found, halved, strict=False):
        assert norm.output.shape[-1] * 2 == whole.output.shape[-1]


def test_adapt_instance_norm_keeps_pretrained_weights():
    plain = backbones.build("mobilenetv2", "none", SIZE)
    path = keras.Model(plain.input, plain.output)
    model = backbones.adapt(path, SIZE, 2, instance_norm=0.5)
    weights = {layer.name: layer.get_weights() for layer in nested(model)}
    for layer in nested(plain):
        for ours, theirs in zip(weights[layer.name], layer.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_backbone_without_early_stages_mixstyle_raises(tmp_path):
    pixels = keras.Input((*SIZE, 3))
    model = keras.Model(pixels, keras.layers.Conv2D(4, 3, strides=2)(pixels), name="shallow")
    model.save(tmp_path / "shallow.keras")
    with pytest.raises(InputError, match="Set mixstyle and instance_norm to 0"):
        backbones.build(str(tmp_path / "shallow.keras"), "none", SIZE, mixstyle=0.5)


# --- Comparisons


def test_build_embedding_features_uses_features_before_neck():
    given = {"num_identities": 5, "image_size": SIZE, "weights": "none"}
    model = models.build("tiny", embedding="features", **given)
    plain = models.build("tiny", **given)
    plain.set_weights(model.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    got, expected = model(images), plain(images)
    np.testing.assert_array_equal(got["embedding"], got["features"])
    for name in ("features", "logits"):
        np.testing.assert_array_equal(got[name], expected[name])
    with pytest.raises(InputError, match="`embedding` must be one of neck, features, got 'both'"):
        models.build("tiny", embedding="both", **given)
    recipe = recipes.get("tiny").replace(embedding="features")
    assert build.build_model(recipe, 5).get_layer("neck").output.shape == (None, 128)


# --- A softmax with a margin


def test_recipe_cosface_builds_cosine_classifier_and_margin_softmax():
    recipe = recipes.get("tiny").replace(softmax="cosface", softmax_scale=20.0, softmax_margin=0.2)
    model = build.build_model(recipe, 5)
    assert isinstance(model.get_layer("logits"), layers.CosineClassifier)
    (loss,) = build.build_losses(recipe)["loss"]["logits"]
    assert isinstance(loss, losses.MarginSoftmaxLoss)
    assert (loss.kind, loss.scale, loss.margin) == ("cosface", 20.0, 0.2)
    assert loss.label_smoothing == recipe.label_smoothing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"softmax": "wide"}, "`softmax` must be one of plain, arcface"),
        ({"softmax": "arcface", "softmax_scale": 0.0}, "scale"),
        ({"softmax": "arcface", "softmax_margin": 3.0}, "for arcface, got 3.0"),
        ({"softmax": "arcface", "parts": 2}, "`softmax` must be plain with parts"),
        ({"mixstyle": 2.0}, r"`mixstyle` must be in \[0, 1\]"),
        ({"instance_norm": 2.0}, r"`instance_norm` must be in \[0, 1\]"),
        ({"embedding": "both"}, "`embedding` must be one of neck, features"),
        ({"embedding": "features", "parts": 2}, "`embedding` must be neck with parts"),
        ({"mixstyle": float("nan")}, r"`mixstyle` must be in \[0, 1\]"),
        ({"frame_weight": -1.0}, "`frame_weight` must be at least 0"),
    ],
)
def test_recipe_invalid_values_raise(change, message):
    with pytest.raises(InputError, match=message):
        recipes.get("tiny").replace(**change)


# --- Starting from a run


@pytest.fixture
def trained(tmp_path):
    """A run folder of five identities on small images."""
    run = Run(tmp_path / "trained")
    recipe = recipes.get("tiny")
    model = build.build_model(recipe, 5)
    run.start({})
    run.save_models([model])
    run.finish({})
    return run, model


def test_start_from_other_size_and_identities_copies_weights(trained):
    run, model = trained
    other = build.build_model(recipes.get("tiny").replace(height=96, width=48), 7)
    left = build.start_from(other, str(run.directory))
    assert left == ["logits"]
    for name in ("tiny", "embedding"):
        for a, b in zip(
            other.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_start_from_image_run_initializes_tracklet_model(trained):
    run, model = trained
    clips = models.build_tracklet("tiny", 5, SIZE, weights="none")
    assert set(build.start_from(clips, str(run.directory))) == {"frame_embedding", "frame_logits"}
    images = np.random.default_rng(0).integers(0, 256, (3, *SIZE, 3), dtype=np.uint8)
    got = clips({"clips": images[:, None], "mask": np.ones((3, 1), bool)})
    np.testing.assert_allclose(got["embedding"], model(images)["embedding"], atol=1e-5)
    np.testing.assert_allclose(got["logits"], model(images)["logits"], atol=1e-5)


def test_start_from_other_backbone_or_missing_run_raises(trained):
    run, _ = trained
    other = models.build("mobilenetv2", 5, SIZE, weights="none")
    with pytest.raises(InputError, match="a run with the backbone mobilenetv2"):
        build.start_from(other, str(run.directory))
    with pytest.raises(InputError, match=r"model\.keras` must be a Keras model"):
        build.start_from(other, str(run.directory / "nothing"))
