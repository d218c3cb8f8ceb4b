"""A single model trains under every backend, on arrays and on `tf.data`, with equal values."""

from importlib.util import find_spec

import keras
import numpy as np
import pytest

from keras_reid import losses, models

SIZE = (32, 16)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 255, (12, *SIZE, 3), dtype=np.uint8)
LABELS = {"identity": np.repeat(np.arange(4), 3).astype("int32")}
# Logs of two steps, as TensorFlow computed them.
RECORDED = {
    "features_circle": [5.958698, 5.959823],
    "features_circle_active": [1.0, 1.0],
    "features_circle_negative": [0.08817099, 0.08767707],
    "features_circle_norm": [2.43212, 2.429784],
    "features_circle_positive": [0.08020549, 0.07959944],
    "features_triplet_hard": [1.63024, 1.622217],
    "features_triplet_hard_active": [1.0, 1.0],
    "features_triplet_hard_negative": [1.227111, 1.221814],
    "features_triplet_hard_norm": [2.43212, 2.429784],
    "features_triplet_hard_positive": [1.242632, 1.236097],
    "logits_accuracy": [0.1666667, 0.1666667],
    "logits_identity": [1.525319, 1.51662],
    "loss": [6.134908, 6.118749],
}


def compiled():
    """Model with weights that do not depend on the random numbers of a backend."""
    model = models.build("tiny", 4, SIZE, weights="none")
    rng = np.random.default_rng(1)
    model.set_weights([np.abs(rng.normal(0, 0.2, w.shape)) for w in model.get_weights()])
    model.compile(
        keras.optimizers.SGD(0.01),
        loss={
            "logits": losses.IdentityLoss(),
            "features": [losses.TripletHardLoss(), losses.CircleLoss(scale=4.0)],
        },
        loss_weights={"features": [1.0, 0.5]},
        metrics={"logits": "accuracy"},
    )
    return model


def assert_recorded(history):
    assert history.keys() == RECORDED.keys()
    for name, values in RECORDED.items():
        assert history[name] == pytest.approx(values, rel=1e-4, abs=1e-6), name


def test_fit_arrays_equals_recorded_values():
    model = compiled()
    history = model.fit(IMAGES, LABELS, 12, epochs=2, shuffle=False, verbose=0).history
    assert_recorded(history)


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="tf.data needs TensorFlow")
def test_fit_tf_data_equals_recorded_values():
    import tensorflow as tf

    batches = tf.data.Dataset.from_tensors((IMAGES, LABELS))
    options = {"epochs": 2, "shuffle": False, "verbose": 0}
    assert_recorded(compiled().fit(batches, **options).history)


def test_evaluate_sample_weight_scales_losses():
    model = compiled()
    alone = np.zeros(12, "float32")
    alone[:6] = 2
    half = {"identity": LABELS["identity"][:6]}
    weighted = model.evaluate(IMAGES, LABELS, 12, sample_weight=alone, verbose=0, return_dict=True)
    expected = model.evaluate(IMAGES[:6], half, 6, verbose=0, return_dict=True)
    name = "logits_identity"
    assert weighted[name] == pytest.approx(expected[name], rel=1e-4)
