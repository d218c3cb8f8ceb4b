"""Identity labels are compared as integers, whatever the dtype of the loss is."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_reid import losses
from keras_reid.errors import InputError

BACKEND = keras.backend.backend()
LABELS = np.repeat(np.arange(4), 2)
EMBEDDINGS = np.random.default_rng(0).normal(size=(8, 16)).astype("float32")
SCORES = np.random.default_rng(1).uniform(0, 1, size=(8, 5000)).astype("float32")
# The largest n of each dtype such that all integers up to n are exact.
DTYPES = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**24}


def metric_value(kind, dtype, labels, **options):
    return float(losses.METRIC_LOSSES[kind](dtype=dtype, **options)(labels, EMBEDDINGS))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, "bfloat16") for kind in losses.METRIC_LOSSES]
    + [("triplet_hard", "float16"), ("triplet_hard", "float32"), ("contrastive", "float16")],
)
def test_metric_loss_large_labels_equals_small_labels(kind, dtype):
    expected = metric_value(kind, dtype, LABELS)
    assert metric_value(kind, dtype, LABELS + DTYPES[dtype]) == expected
    assert metric_value(kind, dtype, (LABELS + DTYPES[dtype]).astype("int32")[:, None]) == expected


def test_aligned_triplet_loss_large_labels_equals_small_labels():
    outputs = (EMBEDDINGS, EMBEDDINGS.reshape(8, 4, 4))
    loss = losses.AlignedTripletLoss(dtype="bfloat16")
    assert float(loss(LABELS + 300, outputs)) == float(loss(LABELS, outputs)) > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    "kind", [losses.IdentityLoss, losses.MarginSoftmaxLoss, losses.CenterLoss], ids=str
)
def test_class_loss_large_labels_picks_own_column(kind, dtype):
    own = np.arange(8) + 4001
    expected = float(kind()(own, SCORES))
    assert float(kind(dtype=dtype)(own, SCORES)) == pytest.approx(expected, rel=0.01)
    assert float(kind(dtype=dtype)(own - 1, SCORES)) != pytest.approx(expected, rel=0.01)


def test_visible_identity_loss_large_labels_picks_own_column():
    own, outputs = np.arange(8) + 4001, (np.stack([SCORES, 9 * SCORES], 1), np.ones((8, 2)))
    expected = float(losses.VisibleIdentityLoss()(own, outputs))
    half = losses.VisibleIdentityLoss(dtype="bfloat16")
    assert float(half(own, outputs)) == pytest.approx(expected, rel=0.01)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no 64-bit integers unless asked for")
def test_labels_beyond_32_bits_are_distinguished():
    labels = LABELS * 2**32 + 20_240_001_000
    assert metric_value("triplet_hard", "float32", labels) == metric_value(
        "triplet_hard", "float32", LABELS
    )
    wrapped = np.array([2**32 + 1, 1])  # 1 and 1 in 32 bits
    assert np.isnan(losses.CenterLoss(reduction=None)(wrapped, SCORES[:2])).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_labels_of_every_type_give_equal_loss(dtype):
    expected = metric_value("triplet_hard", "float32", LABELS)
    assert metric_value("triplet_hard", "float32", LABELS.astype(dtype)) == expected
    own = (LABELS + 200).astype(dtype)  # uint8 could not number all the columns
    for loss in (losses.IdentityLoss(), losses.CenterLoss()):
        assert float(loss(own, SCORES)) == float(loss(LABELS + 200, SCORES))


def test_contrastive_loss_given_pairs_takes_booleans_and_floats():
    loss, distances = losses.ContrastiveLoss(pairs="given"), np.array([0.1, 0.9, 0.4], "float32")
    expected = float(loss(np.array([1, 0, 1]), distances))
    assert float(loss(np.array([True, False, True]), distances)) == expected
    assert float(loss(np.array([1.0, 0.0, 1.0]), distances)) == expected


def test_sample_weight_weighs_images_of_large_labels():
    weights, loss = np.array([1, 1, 1, 1, 0, 0, 0, 0]), losses.IdentityLoss(dtype="bfloat16")
    own = np.arange(8) + 4001
    each = losses.IdentityLoss(reduction=None)(own, SCORES)
    expected = float(np.sum(ops.convert_to_numpy(each)[:4]) / 8)
    assert float(loss(own, SCORES, weights)) == pytest.approx(expected, rel=0.01)


def test_statistics_of_large_labels_are_those_of_small_labels():
    loss = losses.TripletHardLoss(dtype="bfloat16")
    value, seen = loss.measure(LABELS + 300, EMBEDDINGS)
    assert float(value) == float(loss(LABELS, EMBEDDINGS))
    expected = loss.measure(LABELS, EMBEDDINGS)[1]
    assert {name: float(v) for name, v in seen.items()} == {
        name: float(v) for name, v in expected.items()
    }


def identity_model(loss, width=16):
    """Model that returns its input, so that its first loss is that of the data."""
    model = keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(width, use_bias=False, kernel_initializer="identity"),
        ]
    )
    model.compile("sgd", loss=loss)
    return model


@pytest.mark.parametrize("weights", [None, np.arange(8.0)], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", [(8,), (8, 1)], ids=str)
def test_fit_large_labels_logs_the_eager_loss(shape, weights):
    loss = losses.TripletHardLoss(dtype="bfloat16")
    expected = float(loss(LABELS, EMBEDDINGS, weights))
    labels = (LABELS + 20_240_001).reshape(shape)
    history = identity_model(loss).fit(
        EMBEDDINGS, labels, batch_size=8, sample_weight=weights, verbose=0
    )
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-6)


def test_fit_floatx_of_half_precision_logs_the_eager_loss():
    expected = metric_value("triplet_hard", "float32", LABELS)
    policy = keras.config.dtype_policy()  # which Keras derives from floatx once
    keras.config.set_floatx("float16")
    try:
        model = identity_model(losses.TripletHardLoss())
        history = model.fit(EMBEDDINGS, LABELS + 5000, batch_size=8, verbose=0)
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)
    assert history.history["loss"][0] == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (losses.TripletHardLoss(), (8, 4)),
        (losses.ContrastiveLoss(), (8, 2)),
        (losses.IdentityLoss(), (8, 16)),
        (losses.IdentityLoss(), (8, 1, 3)),
        (losses.MarginSoftmaxLoss(), (8, 16)),
        (losses.CenterLoss(), (8, 2)),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_several_columns_of_labels_raise_input_error(loss, shape):
    message = r"`y_true` must be one identity index .*got shape \({}, .*argmax"
    labels = np.zeros(shape, "int32")
    with pytest.raises(InputError, match=message.format(8)):
        loss(labels, EMBEDDINGS)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec((None, *shape[1:])), tf.TensorSpec((None, 16))]
        with pytest.raises(InputError, match=message.format("None")):
            tf.function(loss.__call__).get_concrete_function(*signature)


def test_fit_one_hot_labels_raises_input_error():
    model, onehot = identity_model(losses.IdentityLoss()), np.eye(4, dtype="float32")[LABELS]
    with pytest.raises(
        InputError, match=r"got shape \((None|8), 4\) for (None|8) predictions\. Convert"
    ):
        model.fit(EMBEDDINGS, onehot, batch_size=8, verbose=0)


def test_identity_loss_other_number_of_labels_raises_input_error():
    with pytest.raises(InputError, match=r"got shape \(5,\) for 8 predictions"):
        losses.IdentityLoss()(LABELS[:5], SCORES)


LOSSES = [losses.TripletHardLoss(), losses.IdentityLoss(), losses.MarginSoftmaxLoss()]
TEXTS = {
    "str": np.array([f"p{label}" for label in LABELS]),
    "bytes": np.array([f"p{label}".encode() for label in LABELS]),
    "object": LABELS.astype(object),
    "datetime64": LABELS.astype("datetime64[s]"),
    "list": [f"p{label}" for label in LABELS],
    "None": [None, *LABELS[1:].tolist()],
}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("kind", TEXTS)
def test_labels_not_numeric_raise_input_error(kind, loss):
    with pytest.raises(InputError, match=r"`y_true` must be .*got labels of type .*unique"):
        loss(TEXTS[kind], SCORES)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has tensors of text")
def test_labels_text_in_graph_raises_input_error():
    import tensorflow as tf

    for loss in LOSSES:
        signature = [tf.TensorSpec((None,), tf.string), tf.TensorSpec((None, 5000))]
        with pytest.raises(InputError, match="got labels of type string"):
            tf.function(loss.__call__).get_concrete_function(*signature)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.5])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_labels_non_integer_floats_raise_input_error(loss, value, dtype):
    labels = ops.cast(np.array([0, 0, 1, 1, 2, value, 3, 3]), dtype)
    with pytest.raises(InputError, match=f"got {value}. Pass integers"):
        loss(labels, SCORES)
    with pytest.raises(InputError, match=f"got {value}. Pass integers"):
        loss(ops.reshape(labels, (8, 1)), SCORES)


def test_labels_floats_in_lists_and_graphs_equal_integers():
    loss = losses.TripletHardLoss()
    expected = float(loss(LABELS, EMBEDDINGS))
    assert float(loss(LABELS.astype(float).tolist(), EMBEDDINGS)) == expected
    history = identity_model(loss).fit(
        EMBEDDINGS, LABELS.astype("float32"), batch_size=8, verbose=0
    )
    assert history.history["loss"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has tensors of unknown rank")
def test_labels_of_unknown_rank_are_accepted():
    import tensorflow as tf

    call = tf.function(
        losses.TripletHardLoss().__call__,
        input_signature=[tf.TensorSpec(None, tf.int64), tf.TensorSpec((None, 16))],
    )
    assert float(call(tf.constant(LABELS), EMBEDDINGS)) == pytest.approx(
        metric_value("triplet_hard", "float32", LABELS), rel=1e-6
    )
