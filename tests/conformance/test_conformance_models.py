"""Properties of every layer and model in the catalog."""

import catalogue
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_reid.layers
from keras_reid import models, serving

SIZE = (32, 16)
# An export takes seconds: one for each kind of output or input, the others nightly.
ONCE = ("avg-bn", "pose", "attributes", "tracklet-mean", "local", "parts", "ensemble")
EXPORTED = [
    name if name in ONCE else pytest.param(name, marks=pytest.mark.nightly)
    for name in catalogue.MODELS
]


def maps(seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(0.5, 2, (3, 5, 4, 6)).astype("float32")
    x[0, :, :, 0] = 0  # a channel that no neuron fires in
    return x


def np_leaves(expected) -> list[np.ndarray]:
    return list(expected) if isinstance(expected, tuple | list) else [expected]


def images(n: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)


def inputs_of(model: keras.Model, n: int = 5):
    """Return images, or the inputs of a model that has others."""
    if not isinstance(model.input, dict):
        return images(n)
    rng = np.random.default_rng(n)
    if models.takes_clips(model):
        mask = np.ones((n, 3), bool)
        mask[0, 2], mask[1, 0] = False, False
        return {"clips": np.stack([images(3, seed) for seed in range(n)]), "mask": mask}
    points = rng.uniform(0, 1, (n, model.input["keypoints"].shape[1], 3)).astype("float32")
    points[0, :, 2] = 0
    return {"images": images(n), "keypoints": points}


def build(name: str) -> keras.Model:
    keras.utils.set_random_seed(1)
    arguments = {"num_identities": 7, **catalogue.MODELS[name]}

    def one() -> keras.Model:
        maker = models.build_tracklet if "temporal" in arguments else models.build
        return maker("tiny", image_size=SIZE, weights="none", **arguments)

    return models.ensemble([one() for _ in range(3)]) if name == "ensemble" else one()


def test_catalogue_lists_every_layer() -> None:
    public = {name for name in keras_reid.layers.__all__ if not name.isupper()}
    assert {name.split("-")[0] for name in catalogue.LAYERS} == public


def test_catalogue_lists_every_pooling_and_neck() -> None:
    used = {name.split("-")[0] for name in catalogue.MODELS}
    assert used >= set(models.POOLINGS)
    necks = {case.get("neck", "bn") for case in catalogue.MODELS.values()}
    assert necks == set(models.NECKS)


@pytest.mark.parametrize("name", catalogue.LAYERS)
@pytest.mark.parametrize(
    "jit_compile", [None, False, pytest.param(True, marks=pytest.mark.nightly)]
)
def test_layers_match_oracle(name: str, jit_compile: bool | None) -> None:
    case = catalogue.LAYERS[name]
    layer = case.layer()
    call = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    layer(*case.inputs(maps(1)))
    inputs, weights = case.inputs(maps()), layer.get_weights()[: case.weights]
    result, expected = call(*inputs), case.truth(*inputs, *weights)
    for one, other in zip(keras.tree.flatten(result), np_leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", catalogue.costly(catalogue.LAYERS))
def test_layers_save_and_load_keep_outputs(name: str, tmp_path) -> None:
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


@pytest.mark.parametrize("name", catalogue.costly(catalogue.LAYERS))
@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_layers_half_precision_values_and_gradients_are_finite(name: str, dtype: str) -> None:
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
    # Of data alone there is nothing to differentiate.
    gradients = tape.gradient(loss, watched) if isinstance(loss, tf.Tensor) else []
    assert sum(gradient is None for gradient in gradients) == case.data
    for value in (*results, *(g for g in gradients if g is not None)):
        assert np.isfinite(np.asarray(tf.cast(value, tf.float32))).all()


@pytest.mark.first(5)
@pytest.mark.parametrize("name", catalogue.MODELS)
def test_models_save_and_load_keep_outputs(name: str, tmp_path) -> None:
    model = build(name)
    inputs = inputs_of(model)
    model(inputs, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    expected, got = model(inputs), loaded(inputs)
    assert list(got) == list(expected)
    for key in expected:
        np.testing.assert_array_equal(got[key], expected[key])


@pytest.mark.first(6)
@pytest.mark.parametrize("name", catalogue.MODELS)
@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_models_eager_graph_and_xla_agree(name: str, jit_compile: bool) -> None:
    model = build(name)
    inputs = inputs_of(model)
    expected = model(inputs)
    specs = keras.tree.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), model.input)
    run = tf.function(
        lambda x, model=model: model(x, training=False),
        jit_compile=jit_compile,
        input_signature=[specs],
    )
    for n in (5, 2):
        some = keras.tree.map_structure(lambda x, n=n: tf.constant(x[:n]), inputs)
        for key, value in run(some).items():
            rows = n * len(expected[key]) // 5  # of frames there are several
            np.testing.assert_allclose(value, expected[key][:rows], rtol=1e-3, atol=1e-4)


@pytest.mark.first(1)
@pytest.mark.parametrize("name", EXPORTED)
def test_models_export_passes_parity(name: str, tmp_path) -> None:
    model = build(name)
    version = serving.export(model, tmp_path / "model")
    assert serving.parity(model, version, inputs_of(model)).ok


# Of an ensemble the members are trained.
@pytest.mark.first(6)
@pytest.mark.parametrize("name", [name for name in catalogue.MODELS if name != "ensemble"])
def test_models_every_trainable_weight_has_finite_gradient(name: str) -> None:
    model = build(name)
    with tf.GradientTape() as tape:
        out = model(inputs_of(model), training=True)
        loss = sum(tf.reduce_sum(value**2) for value in out.values())
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.path
        assert np.isfinite(gradient).all(), variable.path
