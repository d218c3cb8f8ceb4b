"""Backbones, pooling, neck, named outputs and embeddings."""

import json

import keras
import numpy as np
import oracle_classifiers
import pytest
import tensorflow as tf

from keras_reid import inference, models
from keras_reid.errors import InputError
from keras_reid.layers import FusedBatchNormalization, GeneralizedMeanPooling2D
from keras_reid.losses.identity import CenterLoss, MarginSoftmaxLoss
from keras_reid.models import backbones

SIZE = (64, 32)


def images(n: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("pooling", models.POOLINGS)
@pytest.mark.parametrize("neck", models.NECKS)
def test_build_pooling_and_neck_returns_named_outputs(pooling: str, neck: str) -> None:
    model = models.build("tiny", 7, SIZE, weights="none", pooling=pooling, neck=neck)
    out = model(images())
    assert {k: tuple(v.shape) for k, v in out.items()} == {
        "features": (4, 128),
        "embedding": (4, 128),
        "logits": (4, 7),
    }
    assert model.input.dtype == "uint8"
    same = np.allclose(out["features"], out["embedding"])
    assert same == (neck == "none")


def test_build_without_identities_omits_logits_and_sets_embedding_dim() -> None:
    model = models.build("tiny", None, SIZE, weights="none", width=16)
    out = model(images())
    assert set(out) == {"features", "embedding"}
    assert out["embedding"].shape == (4, 16)


def test_build_cosine_classifier_and_centers_returns_expected_outputs() -> None:
    model = models.build("tiny", 7, SIZE, weights="none", classifier="cosine", centers=True)
    rng = np.random.default_rng(0)
    model.set_weights([w + rng.uniform(0, 0.2, w.shape) for w in model.get_weights()])
    out = model(images())
    kernel, centers = (model.get_layer(name).get_weights()[0] for name in ("logits", "centers"))
    cosines = oracle_classifiers.cosines(out["embedding"], kernel)
    distances = oracle_classifiers.squared_distances(out["features"], centers)
    np.testing.assert_allclose(out["logits"], cosines, atol=1e-6)
    np.testing.assert_allclose(out["centers"], distances, rtol=1e-5)


def test_build_cosine_classifier_without_identities_is_omitted() -> None:
    model = models.build("tiny", None, SIZE, weights="none", classifier="cosine")
    assert set(model.output) == {"features", "embedding"}


@pytest.mark.nightly
def test_learner_margin_softmax_and_center_loss_trains_and_saves(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 4, SIZE, weights="none", classifier="cosine", centers=True)
    loss = {"logits": MarginSoftmaxLoss(), "centers": CenterLoss()}
    model.compile(keras.optimizers.SGD(0.1), loss, {"centers": 0.1})
    heads = [model.get_layer(name) for name in ("logits", "centers")]
    before = [head.get_weights()[0] for head in heads]
    labels = {"identity": np.arange(4, dtype="int32")}
    logs = model.train_on_batch(images(), labels, return_dict=True)
    total = logs["logits_margin_softmax"] + 0.1 * logs["centers_center"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)
    for head, old in zip(heads, before, strict=True):
        assert np.all(np.any(head.get_weights()[0] != old, axis=1)), head.name

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in model(images()).items():
        np.testing.assert_array_equal(loaded(images())[key], value)


def test_backbones_build_mobilenetv2_resets_batch_norm_momentum() -> None:
    """The momentum of 0.999 keeps ImageNet's statistics for longer than a short training."""
    model = backbones.build("mobilenetv2", "none", (64, 32))
    layers = [layer for layer in model._flatten_layers() if hasattr(layer, "moving_mean")]
    assert len(layers) > 50
    assert {layer.momentum for layer in layers} == {0.99}


@pytest.mark.first(1)
@pytest.mark.parametrize("name", [name for name in models.BACKBONES if name != "tiny"])
@pytest.mark.slow
def test_backbones_build_last_stride_1_doubles_feature_map(name: str) -> None:
    coarse = backbones.build(name, "none", (128, 64), last_stride=2)
    fine = backbones.build(name, "none", (128, 64), last_stride=1)
    assert coarse.output_shape[1:3] == (4, 2)
    assert fine.output_shape[1:3] == (8, 4)
    assert fine.count_params() == coarse.count_params()


def test_backbones_adapt_last_stride_keeps_weights() -> None:
    keras.utils.set_random_seed(0)
    published = models.BACKBONES["tiny"](None, (*SIZE, 3))
    fine = backbones.adapt(published, SIZE, 1)
    for a, b in zip(published.get_weights(), fine.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_backbones_adapt_uneven_padding_keeps_map_size() -> None:
    pixels = keras.Input((64, 32, 3))
    x = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(pixels)
    x = keras.layers.Conv2D(4, 3, strides=2, padding="valid")(x)
    model = keras.Model(pixels, x)
    assert backbones.adapt(model, (64, 32), 1).output_shape[1:3] == (64, 32)


def test_fused_batch_normalization_matches_keras() -> None:
    """Outputs, moving statistics and gradients, in training and inference."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3, 5, (6, 5, 4, 3)), tf.float32)
    ours, theirs = FusedBatchNormalization(), keras.layers.BatchNormalization()
    results = []
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.set_weights(
            np.array([[1.5, 0.5, 2.0], [0.1, -1.0, 0.0], [0.2, 0.1, 0.3], [1.0, 2.0, 0.5]])
        )
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(y**3)
        gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        results.append([y, layer(x, training=False), *layer.get_weights(), *gradients])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3)


def test_fused_batch_normalization_2d_or_frozen_falls_back_to_keras() -> None:
    x = tf.random.stateless_normal((8, 3), (0, 1))
    ours, theirs = FusedBatchNormalization(), keras.layers.BatchNormalization()
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), rtol=1e-6)
    frozen = FusedBatchNormalization(trainable=False)
    maps = tf.random.stateless_normal((2, 3, 3, 4), (0, 1))
    frozen(maps, training=True)
    np.testing.assert_array_equal(frozen.get_weights()[2], np.zeros(4))


def test_generalized_mean_pooling_is_between_mean_and_maximum() -> None:
    x = np.random.default_rng(0).uniform(0.1, 2, (3, 4, 5, 6)).astype("float32")
    one, large = GeneralizedMeanPooling2D(p=1.0), GeneralizedMeanPooling2D(p=60.0)
    np.testing.assert_allclose(one(x), x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(large(x), x.max((1, 2)), rtol=6e-2)
    expected = (x.astype("float64") ** 3).mean((1, 2)) ** (1 / 3)
    np.testing.assert_allclose(GeneralizedMeanPooling2D()(x), expected, rtol=1e-5)


def test_generalized_mean_pooling_zero_input_has_finite_gradients() -> None:
    layer = GeneralizedMeanPooling2D()
    x = tf.zeros((1, 2, 2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    for gradient in tape.gradient(y, [x, *layer.trainable_variables]):
        assert np.isfinite(gradient).all()


def test_embed_returns_normalized_ordered_and_flip_invariant_rows() -> None:
    model = models.build("tiny", 3, SIZE, weights="none")
    x = images(5)
    whole = inference.load(model)([x])
    parts = inference.load(model)([x[:2], x[2:]])
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(whole, parts, atol=1e-5)
    flipped = inference.load(model, flip=True)([x[:, :, ::-1]])
    np.testing.assert_allclose(inference.load(model, flip=True)([x]), flipped, atol=1e-5)
    assert not np.allclose(whole, inference.load(model)([x[:, :, ::-1]]), atol=1e-3)


def test_ensemble_concatenates_scaled_member_embeddings() -> None:
    members = [models.build("tiny", 3, SIZE, weights="none", width=d) for d in (4, 8)]
    joint = models.ensemble(members)
    x = images(5)
    parts = [inference.load(member)([x]) for member in members]
    embedding = inference.load(joint)([x])
    np.testing.assert_allclose(embedding, np.hstack(parts) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(joint(x)["embedding"], axis=1), 1, rtol=1e-5)

    def squared(e):
        return ((e[:, None] - e[None]) ** 2).sum(-1)

    mean = (squared(parts[0]) + squared(parts[1])) / 2
    np.testing.assert_allclose(squared(embedding), mean, atol=1e-5)
    single = inference.load(models.ensemble(members[:1]))([x])
    np.testing.assert_allclose(single, parts[0], atol=1e-6)
    for member in members:
        assert member.name == "embedder"
    other = models.build("tiny", 3, (64, 16), weights="none")
    with pytest.raises(InputError, match="got 2 for the shapes"):
        models.ensemble([members[0], other])
    with pytest.raises(InputError, match="got 0 for the shapes"):
        models.ensemble([])


def test_build_save_and_load_keeps_outputs(tmp_path) -> None:
    model = models.build("tiny", 3, SIZE, weights="none", pooling="gem")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in model(images()).items():
        np.testing.assert_allclose(loaded(images())[key], value, atol=1e-6)


def test_backbones_build_from_model_and_weights_files_matches_source(tmp_path) -> None:
    published = models.BACKBONES["tiny"](None, (*SIZE, 3))
    published.save(tmp_path / "backbone.keras")
    built = backbones.build(str(tmp_path / "backbone.keras"), image_size=SIZE, last_stride=2)
    x = images().astype("float32")
    np.testing.assert_allclose(built(x), published(x), atol=1e-5)

    weights = str(tmp_path / "tiny.weights.h5")
    built.save_weights(weights)
    again = backbones.build("tiny", weights, SIZE, last_stride=2)
    np.testing.assert_allclose(again(x), built(x), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet51"}, "one of efficientnetv2-b0.*got 'resnet51'"),
        ({"backbone": "nowhere.keras"}, "got 'File not found: filepath=nowhere.keras"),
        ({"weights": "imagenet"}, "tiny has no published weights"),
        ({"weights": "nowhere.weights.h5"}, "`nowhere.* must hold weights of the same tiny, got"),
        ({"pooling": "median"}, "`pooling` must be one of avg, avg_max, gem, max, got 'median'"),
        ({"neck": "giraffe"}, "`neck` must be one of bn, none, got 'giraffe'"),
        ({"classifier": "svm"}, "`classifier` must be one of linear, cosine, got 'svm'"),
        ({"centers": True, "num_identities": None}, "a number if `centers` is set, got None"),
        ({"last_stride": 3}, "`last_stride` must be one of 1, 2, got 3"),
        ({"num_identities": 0}, "`num_identities` must be at least 1, got 0. None"),
        ({"width": 0}, "`width` must be at least 1"),
        ({"backbone": "keras_cv:nothing"}, "keras_cv: followed by one of"),
    ],
)
def test_build_invalid_arguments_raises(arguments: dict, message: str) -> None:
    defaults = {"backbone": "tiny", "num_identities": 3, "image_size": SIZE, "weights": "none"}
    with pytest.raises(InputError, match=message):
        models.build(**{**defaults, **arguments})


def test_backbones_build_unsuitable_file_raises(tmp_path) -> None:
    (tmp_path / "broken.keras").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="must be a Keras model"):
        backbones.build(str(tmp_path / "broken.keras"), image_size=SIZE)
    flat = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.GlobalAveragePooling2D()])
    flat.save(tmp_path / "flat.keras")
    with pytest.raises(InputError, match=r"one feature map .* classifier"):
        backbones.build(str(tmp_path / "flat.keras"), image_size=SIZE)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(InputError, match=r"other.* must hold weights of the same tiny, got"):
        backbones.build("tiny", str(tmp_path / "other.weights.h5"), SIZE)


def test_embed_without_embedding_or_images_raises() -> None:
    pixels = keras.Input((*SIZE, 3))
    flat = keras.Model(pixels, keras.layers.Flatten()(pixels))
    with pytest.raises(InputError, match="output named 'embedding'"):
        inference.load(keras.Model(pixels, [pixels, flat.output]))
    with pytest.raises(InputError, match="`images` must be at least 1"):
        inference.load(models.build("tiny", 3, SIZE, weights="none"))([])


@pytest.mark.first(1)
@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", ["mobilenetv2", "efficientnet_lite0"])
def test_build_real_backbone_file_is_accepted(real_data, name: str) -> None:
    path = real_data / "weights" / f"{name}_imagenet.keras"
    model = models.build(str(path), 5, (128, 64))
    assert model.output["features"].shape == (None, 1280)
    published = keras.saving.load_model(path)
    x = np.random.default_rng(0).uniform(0, 255, (2, 128, 64, 3)).astype("float32")
    coarse = backbones.build(str(path), image_size=(128, 64), last_stride=2)
    np.testing.assert_allclose(coarse(x), published(x), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_backbones_build_keras_cv_folder_loads_weights(weights: str, tmp_path) -> None:
    """The layout that KerasCV downloads, written here since a test fetches nothing."""
    keras_cv = pytest.importorskip("keras_cv")
    published = keras_cv.models.MobileNetV3Backbone(
        stackwise_expansion=[1, 4],
        stackwise_filters=[16, 24],
        stackwise_kernel_size=[3, 3],
        stackwise_stride=[2, 2],
        stackwise_se_ratio=[0.25, None],
        stackwise_activation=["relu", "relu"],
        include_rescaling=True,
        input_shape=(*SIZE, 3),
    )
    config = keras.saving.serialize_keras_object(published)
    (tmp_path / "config.json").write_text(json.dumps({**config, "weights": "model.weights.h5"}))
    (tmp_path / "metadata.json").write_text(json.dumps({"keras_version": keras.__version__}))
    published.save_weights(tmp_path / "model.weights.h5")
    built = backbones.build(f"keras_cv:{tmp_path}", weights, SIZE, last_stride=2)
    x = images().astype("float32")
    same = np.allclose(built(x), published(x), atol=1e-4)
    assert same == (weights == "imagenet")
    fine = backbones.build(f"keras_cv:{tmp_path}", weights, SIZE, last_stride=1)
    assert fine.output_shape[1] == 2 * built.output_shape[1]
