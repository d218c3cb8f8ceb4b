"""Callbacks of Keras, class weights and sample weights in the training of several members."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reid import losses, models
from keras_reid.errors import InputError
from keras_reid.training import Distiller, MutualLearner

IMAGES = np.random.default_rng(0).integers(0, 255, (8, 4, 2, 3)).astype("uint8")
LABELS = {"identity": np.repeat(np.arange(4), 2), "camera": np.tile([0, 1], 4)}
BATCHES = tf.data.Dataset.from_tensors((IMAGES, LABELS)).repeat(2)
callbacks = keras.callbacks


def member(seed):
    keras.utils.set_random_seed(seed)
    images = keras.Input((4, 2, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    features = keras.layers.Dense(6, name="features")(x)
    logits = keras.layers.Dense(4, dtype="float32", name="logits")(features)
    return keras.Model(images, {"features": features, "logits": logits})


def learner(kind="mutual", optimizer=None, loss=None):
    if kind == "mutual":
        made = MutualLearner([member(0), member(1)])
    else:
        made = Distiller(member(0), member(1))
    made.compile(
        optimizer or keras.optimizers.SGD(0.01),
        loss=loss or {"logits": losses.IdentityLoss()},
        distillation_loss={"logits": losses.LogitDistillationLoss()},
        run_eagerly=True,
    )
    return made


def fitted(callback, epochs=2, **options):
    made = learner(**options)
    made.fit(BATCHES, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback])
    return made


def rates(made):
    return [round(float(one.learning_rate), 6) for one in made.optimizer.optimizers]


@pytest.mark.parametrize("kind", ["mutual", "distiller"])
def test_reduce_lr_on_plateau_several_members_reduces_all(kind):
    callback = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=100)
    assert {*rates(fitted(callback, kind=kind))} == {0.005}


def test_learning_rate_scheduler_several_members_sets_all():
    callback = callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.5)
    assert rates(fitted(callback)) == [0.0025, 0.0025]


def test_member_optimizers_learning_rate_is_set_for_all():
    made = learner()
    made.optimizer.learning_rate = 0.25
    assert rates(made) == [0.25, 0.25]
    assert float(made.optimizer.learning_rate) == 0.25


def test_member_optimizers_different_rates_raise():
    made = learner(optimizer=[keras.optimizers.SGD(0.5), keras.optimizers.SGD(0.25)])
    with pytest.raises(InputError, match=r"`learning_rate` must be one number.*\[0.5, 0.25\]"):
        _ = made.optimizer.learning_rate


@pytest.mark.parametrize("kind", ["mutual", "distiller"])
def test_swap_ema_weights_several_members_ends_with_averages(kind):
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    plain = fitted(callbacks.Callback(), kind=kind, optimizer=keras.optimizers.SGD(0.1))
    swapped = fitted(callbacks.SwapEMAWeights(True), kind=kind, optimizer=optimizer)
    for name, model in swapped.members.items():
        last, mean = plain.members[name].get_weights()[0], model.get_weights()[0]
        assert 1e-7 < np.abs(last - mean).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mutual", "distiller"])
def test_backup_and_restore_several_members_continues_exactly(kind, tmp_path):
    class Stop(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def backup():
        return callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)

    def new():
        return learner(kind, keras.optimizers.Adam(0.01))

    whole = new()
    whole.fit(BATCHES, epochs=3, verbose=0, shuffle=False)
    with pytest.raises(KeyboardInterrupt):
        new().fit(BATCHES, epochs=3, verbose=0, shuffle=False, callbacks=[backup(), Stop()])
    resumed = new()
    history = resumed.fit(BATCHES, epochs=3, verbose=0, shuffle=False, callbacks=[backup()])
    assert history.epoch == [2]
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_tensorboard_several_members_counts_steps(tmp_path):
    made = fitted(callbacks.TensorBoard(tmp_path, update_freq="batch"), epochs=1)
    assert int(made.optimizer.iterations) == 2
    assert list(tmp_path.rglob("events*"))


def test_member_optimizers_mixed_float16_scheduler_sets_all():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = fitted(callbacks.LearningRateScheduler(lambda epoch: 0.5), epochs=1)
    finally:
        keras.config.set_dtype_policy(policy)
    assert rates(made) == [0.5, 0.5]


def test_sample_weight_of_arrays_equals_weights_in_batches():
    weights = np.arange(8, dtype="float32")
    data = (IMAGES, LABELS, weights)
    expected = learner().evaluate(tf.data.Dataset.from_tensors(data), verbose=0, return_dict=True)
    unweighted = learner().evaluate(IMAGES, LABELS, batch_size=8, verbose=0, return_dict=True)
    assert abs(unweighted["loss"] - expected["loss"]) > 0.1
    arrays = learner().evaluate(
        IMAGES, LABELS, 8, sample_weight=weights, verbose=0, return_dict=True
    )
    assert arrays == pytest.approx(expected, rel=1e-5)
    batch = learner().test_on_batch(IMAGES, LABELS, weights, return_dict=True)
    assert batch["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    history = learner().fit(
        IMAGES, LABELS, 8, sample_weight=weights, validation_data=data, verbose=0, shuffle=False
    )
    step = learner().train_on_batch(IMAGES, LABELS, weights, return_dict=True)
    assert history.history["loss"][0] == pytest.approx(step["loss"], rel=1e-4)
    assert np.isfinite(history.history["val_loss"]).all()


def test_sample_weight_of_arrays_single_model_equals_weights_in_batches():
    weights = np.arange(8, dtype="float32")

    def new():
        keras.utils.set_random_seed(0)
        model = models.build("tiny", 4, (16, 8), weights="none")
        model.compile("sgd", {"logits": losses.IdentityLoss()}, run_eagerly=True)
        return model

    images = np.random.default_rng(0).integers(0, 255, (8, 16, 8, 3)).astype("uint8")
    batches = tf.data.Dataset.from_tensors((images, LABELS, weights))
    expected = new().evaluate(batches, verbose=0)
    assert new().evaluate(images, LABELS, sample_weight=weights, verbose=0) == pytest.approx(
        expected
    )


def test_sample_weight_by_output_weighs_its_losses():
    weights = np.arange(8, dtype="float32")
    whole = learner().test_on_batch(IMAGES, LABELS, weights, return_dict=True)
    named = learner().test_on_batch(IMAGES, LABELS, {"logits": weights}, return_dict=True)
    assert named == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize(
    ("identity", "text"),
    [(np.arange(8), "no pair of images of one identity"), (np.zeros(8, int), "images of two")],
)
def test_fit_batches_without_pair_warn_once(caplog, identity, text):
    made = learner(loss={"features": losses.TripletHardLoss()})
    batches = tf.data.Dataset.from_tensors((IMAGES, {"identity": identity})).repeat(2)
    made.fit(batches, epochs=2, verbose=0, shuffle=False)
    assert len([one for one in caplog.records if "The first batch has no pair" in one.msg]) == 1
    assert text in caplog.text


def test_fit_batches_with_pairs_do_not_warn(caplog):
    learner(loss={"features": losses.TripletHardLoss()}).fit(BATCHES, verbose=0, shuffle=False)
    assert "no pair" not in caplog.text
