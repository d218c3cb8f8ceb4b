"""Models are the same under any layout and dtype that a keras.json sets."""

import keras
import numpy as np
import processes
import pytest

from keras_reid import io, layers, losses, models
from keras_reid.models import backbones, heads

SIZE = (64, 32)
IMAGES = np.random.default_rng(0).integers(0, 255, (4, *SIZE, 3)).astype("uint8")


@pytest.fixture
def channels_first():
    setting = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    assert keras.config.image_data_format() == "channels_first"
    keras.config.set_image_data_format(setting)


@pytest.fixture(params=["float64", "float16"])
def floatx(request):
    setting, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(request.param)
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_floatx(setting)
    keras.config.set_dtype_policy(policy)


def parts_model(**options):
    keras.utils.set_random_seed(0)
    local = heads.PartHead(parts=2, width=8)
    return models.build("tiny", 3, SIZE, weights="none", heads=(local,), **options)


def tracklet_model(temporal):
    keras.utils.set_random_seed(0)
    return models.build_tracklet("tiny", 3, SIZE, temporal=temporal, weights="none")


@pytest.mark.slow
def test_pretrained_channels_first_gives_recorded_embedding(channels_first):
    card = models.PRETRAINED["person-mobilenetv2"]
    model = models.pretrained()
    images = np.random.default_rng(0).integers(0, 255, (2, *card.image_size, 3)).astype("uint8")
    first = model(images)["embedding"].numpy()
    keras.config.set_image_data_format("channels_last")
    expected = models.pretrained()(images)["embedding"].numpy()
    keras.config.set_image_data_format("channels_first")
    np.testing.assert_allclose(first, expected, atol=1e-5)


def test_read_model_vector_scale_channels_first_equals_channels_last(channels_first, tmp_path):
    pixels = keras.Input((*SIZE, 3))
    scaled = keras.layers.Rescaling([1.0, 2.0, 3.0], [0.5, 0.0, 1.0])(pixels)
    keras.Model(pixels, keras.Model(pixels, scaled)(pixels)).save(tmp_path / "scaled.keras")
    scaled = io.read_model(tmp_path / "scaled.keras")(IMAGES)
    np.testing.assert_allclose(scaled, IMAGES * [1.0, 2.0, 3.0] + [0.5, 0.0, 1.0], rtol=1e-5)


@pytest.mark.parametrize("pooling", ["avg", "max", "gem", "avg_max"])
def test_build_channels_first_equals_channels_last(channels_first, pooling):
    first = parts_model(pooling=pooling)(IMAGES)
    keras.config.set_image_data_format("channels_last")
    last = parts_model(pooling=pooling)(IMAGES)
    keras.config.set_image_data_format("channels_first")
    for name, output in last.items():
        np.testing.assert_allclose(first[name], output, atol=1e-5)


@pytest.mark.slow
def test_build_mobilenetv2_channels_first_yields_map(channels_first):
    model = backbones.build("mobilenetv2", "none", SIZE)
    assert model.output_shape == (None, 4, 2, 1280)
    assert model(IMAGES.astype("float32")).shape == (4, 4, 2, 1280)


def test_build_tracklet_channels_first_equals_channels_last(channels_first):
    clips = {"clips": np.stack([IMAGES, IMAGES[::-1]]), "mask": np.ones((2, 4), bool)}
    first = tracklet_model("attention")(clips)
    keras.config.set_image_data_format("channels_last")
    last = tracklet_model("attention")(clips)
    keras.config.set_image_data_format("channels_first")
    np.testing.assert_allclose(first["embedding"], last["embedding"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "gem"}, {"mixstyle": 1.0}, {"instance_norm": 0.5}, {"classifier": "cosine"}],
    ids=str,
)
def test_build_any_floatx_trains(floatx, options):
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 2, SIZE, weights="none", **options)
    loss = {"features": losses.TripletHardLoss(), "logits": losses.IdentityLoss()}
    model.compile(keras.optimizers.SGD(0.01), loss=loss, run_eagerly=True)
    value = model.train_on_batch(IMAGES, {"identity": np.array([0, 0, 1, 1])}, return_dict=True)
    assert np.isfinite(value["loss"])
    outputs = model(IMAGES, training=False)
    assert all(np.isfinite(output).all() for output in outputs.values())


@pytest.mark.slow
@pytest.mark.parametrize("temporal", ["mean", "max", "attention", "recurrent"])
def test_build_tracklet_any_floatx_is_finite(floatx, temporal):
    clips = {"clips": np.stack([IMAGES, IMAGES]), "mask": np.ones((2, 4), bool)}
    outputs = tracklet_model(temporal)(clips, training=True)
    assert np.isfinite(outputs["embedding"]).all()


@pytest.mark.slow
def test_pretrained_any_floatx_is_float32(floatx):
    assert models.pretrained().output["embedding"].dtype == "float32"


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.PartPooling(2),
        layers.GeneralizedMeanPooling2D,
        lambda: layers.StripePooling(2),
        lambda: layers.MixStyle(1.0),
        layers.FusedBatchNormalization,
        layers.AverageMaxPooling2D,
    ],
)
def test_layer_any_floatx_returns_that_dtype(floatx, layer):
    maps = np.random.default_rng(0).normal(size=(3, 4, 2, 8))
    output = layer()(keras.ops.convert_to_tensor(maps, floatx), training=True)
    assert keras.backend.standardize_dtype(output.dtype) == floatx


def test_pair_verifier_any_floatx_is_finite(floatx):
    model = models.build_pair_verifier("tiny", SIZE, weights="none")
    assert np.isfinite(model([IMAGES, IMAGES[::-1]], training=True)["distance"]).all()


@pytest.mark.parametrize("backend", ["jax", "theano"])
def test_command_other_backend_prints_one_error(monkeypatch, tmp_path, backend):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    error = processes.said("search.py", "stats", cwd=tmp_path, code=1)
    assert error.splitlines() == [
        f"error: `KERAS_BACKEND` must be tensorflow for the commands, got '{backend}'. Unset it."
    ]
