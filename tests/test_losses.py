"""Hand vectors, errors, a plain `fit`, and the facts about Keras losses that bite."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reid import mining
from keras_reid.errors import InputError
from keras_reid.losses import IdentityLoss, MetricLoss, TripletHardLoss

LINE = np.array([[0], [3], [4], [9]], "float32")
PAIRS = np.array([0, 0, 1, 1])


# --- TripletHardLoss


def test_batch_hard_by_hand():
    np.testing.assert_array_equal(
        TripletHardLoss(margin=1.0, reduction=None)(PAIRS, LINE), [0, 3, 5, 0]
    )
    assert float(TripletHardLoss(margin=1.0)(PAIRS, LINE)) == 2.0


def test_soft_margin_by_hand():
    value = float(TripletHardLoss(margin=None)(PAIRS, LINE))
    assert value == pytest.approx(1.692900328499307, rel=1e-6)


def test_squared_by_hand():
    loss = TripletHardLoss(margin=1.0, distance="squared_euclidean")
    assert float(loss(PAIRS, LINE)) == 8.5


@pytest.mark.parametrize(("margin", "collapsed"), [(0.3, 0.3), (None, np.log(2))])
def test_collapsed_embeddings_cost_the_margin(margin, collapsed):
    assert float(TripletHardLoss(margin=margin)(PAIRS, np.ones((4, 8)))) == pytest.approx(collapsed)


def test_a_lone_identity_is_a_negative_but_not_an_anchor():
    """Anchors 0 and 1 see the lone 2.5 as nearest negative; the mean is over the four of pairs."""
    labels, line = np.append(PAIRS, 2), np.append(LINE, [[2.5]], axis=0).astype("float32")
    values = TripletHardLoss(margin=1.0, reduction=None)(labels, line)
    np.testing.assert_allclose(values, np.array([1.5, 3.5, 5, 0, 0]) * 5 / 4, rtol=1e-6)
    assert float(TripletHardLoss(margin=1.0)(labels, line)) == 2.5


def test_sample_weights_weigh_anchors():
    weights = np.array([1, 2, 0, 1])
    assert float(TripletHardLoss(margin=1.0)(PAIRS, LINE, weights)) == 6 / 4


def test_labels_may_be_a_column():
    assert float(TripletHardLoss(margin=1.0)(PAIRS[:, None], LINE)) == 2.0


def test_the_mean_is_over_all_comparisons_of_a_miner():
    class TripletAll(MetricLoss):
        miner = "all"

        def formula(self, mined):
            return self.slack(mined.positive - mined.negative)

    loss = TripletAll(margin=1.0)
    assert float(loss(PAIRS, LINE)) == 1.25
    np.testing.assert_array_equal(loss.call(PAIRS, LINE), [0, 1.5, 3.5, 0])
    assert float(loss(np.zeros(4), LINE)) == 0


def test_a_miner_may_be_a_function():
    class OfPairs(TripletHardLoss):
        miner = staticmethod(mining.margin_sample)

    assert float(OfPairs(margin=1.0)(PAIRS, LINE)) == 5.0


@keras.saving.register_keras_serializable(package="tests")
def doubled(x):
    return 2 * tf.abs(x - tf.transpose(x))


def test_a_registered_function_as_distance_survives_the_config():
    loss = TripletHardLoss(margin=1.0, distance=doubled)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.distance is doubled
    assert float(again(PAIRS, LINE)) == float(loss(PAIRS, LINE)) == (5 + 9) / 4


def test_the_config_says_all():
    loss = TripletHardLoss(None, "cosine", True, reduction="sum", name="t", dtype="float64")
    assert loss.get_config() == {
        "margin": None,
        "distance": "cosine",
        "normalize": True,
        "gather": False,
        "anchors": "valid",
        "reduction": "sum",
        "name": "t",
        "dtype": "float64",
    }


@pytest.mark.parametrize("margin", [-0.1, float("inf"), float("nan")])
def test_margins_are_distances(margin):
    with pytest.raises(InputError, match=f"at least 0 or None, but {margin} was given"):
        TripletHardLoss(margin=margin)


def test_unknown_distance_is_refused_when_the_loss_is_made():
    with pytest.raises(InputError, match=r"one of euclidean, .* but 'l2' was given"):
        TripletHardLoss(distance="l2")


def test_as_many_identities_as_embeddings():
    with pytest.raises(InputError, match="but 3 identities and 4 embeddings were given"):
        TripletHardLoss()(PAIRS[:3], LINE)


def test_embeddings_are_a_matrix():
    with pytest.raises(InputError, match=r"matrix.*\(4, 1, 1\)"):
        TripletHardLoss()(PAIRS, LINE[:, None])


# --- IdentityLoss


def test_smoothed_cross_entropy_by_hand():
    logits = np.array([[np.log(3), 0]])
    value = float(IdentityLoss(smoothing=0.1)(np.array([0]), logits))
    assert value == pytest.approx(0.3426126868851863, rel=1e-6)


def test_smoothed_cross_entropy_is_the_one_of_keras():
    logits = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    labels = np.arange(7) % 5
    peer = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    expected = float(peer(np.eye(5)[labels], logits))
    assert float(IdentityLoss(smoothing=0.2)(labels, logits)) == pytest.approx(expected, rel=1e-6)


def test_huge_logits_stay_finite():
    value = float(IdentityLoss(smoothing=0.0)(np.array([0, 1]), 1e6 * np.eye(2)[::-1]))
    assert value == pytest.approx(1e6)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_is_a_share(smoothing):
    with pytest.raises(InputError, match=rf"share in \[0, 1\), but {smoothing} was given"):
        IdentityLoss(smoothing=smoothing)


def test_logits_are_a_matrix():
    with pytest.raises(InputError, match=r"\(batch, identities\), but the shape is \(4,\)"):
        IdentityLoss()(np.zeros(4), np.zeros(4))


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_not_trained_on(label):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"label value of {label}"):
        IdentityLoss()(np.array([label]), np.zeros((1, 5)))


# --- In a plain fit


def people(count=6, images=8, width=5):
    """Points that scatter around one centre per identity."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(count, width)), images, axis=0)
    x = (centres + 0.8 * rng.normal(size=centres.shape)).astype("float32")
    return x, np.repeat(np.arange(count, dtype="int32"), images)


@pytest.mark.parametrize("loss", [TripletHardLoss(), IdentityLoss()], ids=lambda loss: loss.name)
def test_a_plain_fit_lowers_the_loss(loss):
    keras.utils.set_random_seed(0)
    x, identities = people()
    model = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(6)])
    model.compile(keras.optimizers.Adam(0.01), loss)
    losses = model.fit(x, identities, batch_size=48, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


def heads():
    inputs = keras.Input((5,))
    features = keras.layers.Dense(4, name="features")(inputs)
    logits = keras.layers.Dense(6, name="logits")(features)
    return inputs, features, logits


def test_fact_1_dict_outputs_train_every_loss():
    """A list of losses on one tensor would train the first only."""
    inputs, features, logits = heads()
    model = keras.Model(inputs, {"features": features, "logits": logits})
    model.compile("sgd", {"features": TripletHardLoss(), "logits": IdentityLoss()})
    x, identities = people()
    logs = model.fit(
        x, {"features": identities, "logits": identities}, batch_size=48, verbose=0
    ).history
    parts = logs["features_loss"][0] + logs["logits_loss"][0]
    assert logs["loss"][0] == pytest.approx(parts, rel=1e-6)
    assert min(logs["features_loss"][0], logs["logits_loss"][0]) > 0


@pytest.mark.parametrize("loss", [TripletHardLoss(), IdentityLoss()], ids=lambda loss: loss.name)
def test_fact_2_a_loss_has_one_value_per_image(loss):
    """Keras divides by the number of replicas only what is not a scalar already."""
    x, identities = people()
    assert loss.call(identities, np.tile(x, 2)).shape == (48,)


def test_fact_3_identities_beyond_24_bits_collide():
    """`Loss.__call__` makes labels float32, so these two become one: indices are contiguous."""
    labels = np.array([2**24, 2**24, 2**24 + 1, 2**24 + 1])
    assert float(TripletHardLoss(margin=1.0)(labels, LINE)) == 0.0
    assert float(np.mean(TripletHardLoss(margin=1.0).call(labels, LINE))) == 2.0
