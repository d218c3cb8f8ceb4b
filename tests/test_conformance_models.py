"""Properties of every layer and model of the catalogue."""

import catalogue
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reid.layers
from keras_reid import models, serving

SIZE = (32, 16)


def maps(seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0.5, 2, (3, 5, 4, 6)).astype("float32")
    x[0, :, :, 0] = 0  # a channel that no neuron fires in
    return x


def np_leaves(expected) -> list[np.ndarray]:
    return list(expected) if isinstance(expected, tuple | list) else [expected]


def images(n: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)


def build(name: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    arguments = {"num_identities": 7, **catalogue.MODELS[name]}

    def one() -> keras.Model:
        return models.build("tiny", image_size=SIZE, weights="none", **arguments)

    return models.ensemble([one() for _ in range(3)]) if name == "ensemble" else one()


def test_every_layer_is_catalogued() -> None:
    assert {name.split("-")[0] for name in catalogue.LAYERS} == set(keras_reid.layers.__all__)


def test_every_pooling_and_neck_is_catalogued() -> None:
    used = {name.split("-")[0] for name in catalogue.MODELS}
    assert used >= set(models.POOLINGS)
    necks = {case.get("neck", "bn") for case in catalogue.MODELS.values()}
    assert necks == set(models.NECKS)


@pytest.mark.parametrize("name", catalogue.LAYERS)
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_layers_equal_their_oracle(name: str, jit_compile: bool | None) -> None:
    case = catalogue.LAYERS[name]
    layer = case.layer()
    call = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    layer(*case.inputs(maps(1)))
    inputs, weights = case.inputs(maps()), layer.get_weights()[: case.weights]
    result, expected = call(*inputs), case.truth(*inputs, *weights)
    for one, other in zip(keras.tree.flatten(result), np_leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", catalogue.LAYERS)
def test_layers_survive_saving(name: str, tmp_path) -> None:
    case = catalogue.LAYERS[name]
    layer, inputs = case.layer(), case.inputs(maps())
    symbols = keras.tree.map_structure(lambda x: keras.Input(x.shape[1:]), inputs)
    flat, given = keras.tree.flatten(symbols), keras.tree.flatten(inputs)
    if len(flat) == 1:
        flat, given = flat[0], given[0]
    model = keras.Model(flat, layer(*symbols))
    changed = [w + 0.25 for w in layer.get_weights()]
    layer.set_weights(changed)
    model.save(tmp_path / "layer.keras")
    loaded = keras.saving.load_model(tmp_path / "layer.keras")
    for one, other in zip(*(keras.tree.flatten(m(given)) for m in (loaded, model)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("name", catalogue.LAYERS)
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_layers_have_finite_values_and_gradients_in_half_precision(name: str, dtype: str) -> None:
    case = catalogue.LAYERS[name]
    layer = case.build(**case.arguments, dtype=dtype)
    inputs = keras.tree.map_structure(tf.constant, case.inputs(maps() * 40))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        results = keras.tree.flatten(layer(*inputs, training=True))
        loss = sum(tf.reduce_sum(tf.cast(y, tf.float32)) for y in results)
    expected = dtype.removeprefix("mixed_") if case.halves else "float32"
    assert {y.dtype.name for y in results} == {expected}
    watched = [*keras.tree.flatten(inputs), *layer.trainable_variables]
    for value in (*results, *tape.gradient(loss, watched)):
        assert np.isfinite(np.asarray(tf.cast(value, tf.float32))).all()


@pytest.mark.parametrize("name", catalogue.MODELS)
def test_models_survive_saving(name: str, tmp_path) -> None:
    model = build(name)
    model(images(), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected, got = model(images()), loaded(images())
    assert list(got) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key])


@pytest.mark.parametrize("name", catalogue.MODELS)
def test_models_agree_eagerly_in_a_graph_and_compiled(name: str) -> None:
    model = build(name)
    expected = model(images())
    for jit_compile in (False, True):
        run = tf.function(
            lambda x, model=model: model(x, training=False),
            jit_compile=jit_compile,
            input_signature=[tf.TensorSpec((None, *SIZE, 3), tf.uint8)],
        )
        for n in (5, 2):
            for key, value in run(images()[:n]).items():
                np.testing.assert_allclose(value, expected[key][:n], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", catalogue.MODELS)
def test_models_are_exported_as_they_are(name: str, tmp_path) -> None:
    model = build(name)
    version = serving.export(model, tmp_path / "model")
    assert serving.parity(model, version, images()).ok


# Of an ensemble the members are trained.
@pytest.mark.parametrize("name", [name for name in catalogue.MODELS if name != "ensemble"])
def test_every_weight_of_a_model_is_trained(name: str) -> None:
    model = build(name)
    with tf.GradientTape() as tape:
        out = model(images(), training=True)
        loss = sum(tf.reduce_sum(value**2) for value in out.values())
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
