"""Mutual learning and distillation: against steps written out by hand, and what stays as it is."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reid import losses, models
from keras_reid.errors import InputError
from keras_reid.training import Distiller, MutualLearner, Objective, Term, imitate

SIZE = (32, 16)
OBJECTIVE = Objective(
    Term("identity", losses.IdentityLoss(0.1), "logits"),
    Term("triplet", losses.TripletHardLoss(0.3), "features", weight=0.5),
)


def imitation() -> Objective:
    return Objective(
        imitate(losses.LogitImitation(2.0), 0.7), imitate(losses.DistanceImitation(), 0.3)
    )


def batch(seed: int = 0, p: int = 4, k: int = 3) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    images = np.random.default_rng(seed).integers(0, 256, (p * k, *SIZE, 3), dtype=np.uint8)
    return tf.constant(images), {"identity": tf.constant(np.repeat(np.arange(p), k), tf.int32)}


def build(seed: int, dropout: bool = False) -> keras.Model:
    """A small embedder, which may have a layer with a seed."""
    keras.utils.set_random_seed(seed)
    model = models.build("tiny", 4, SIZE, weights="none", width=8)
    if not dropout:
        return model
    noisy = keras.layers.GaussianNoise(0.1, seed=seed)(model.output["logits"])
    return keras.Model(model.input, {**model.output, "logits": noisy})


def members(count: int = 2, **options) -> list[keras.Model]:
    return [build(seed, **options) for seed in range(count)]


def adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(1e-3, epsilon=1e-3)


def mutual(count: int = 2, **options) -> MutualLearner:
    learner = MutualLearner(members(count), OBJECTIVE, imitation(), **options)
    learner.compile(adam())
    return learner


def own_loss(labels, out):
    identity = losses.IdentityLoss(0.1)(labels["identity"], out["logits"])
    return identity + 0.5 * losses.TripletHardLoss(0.3)(labels["identity"], out["features"])


def likeness(teacher, own):
    """Temperature 2 divergence of logits, and squared differences of distances, weighted."""
    t, s = (tf.nn.log_softmax(out["logits"] / 2) for out in (teacher, own))
    logits = 4 * tf.reduce_mean(tf.reduce_sum(tf.exp(t) * (t - s), axis=1))

    def matrix(x):
        squared = tf.reduce_sum((x[:, None] - x[None]) ** 2, axis=-1)
        return tf.sqrt(tf.where(squared > 0, squared, 1)) * tf.cast(squared > 0, tf.float32)

    gap = matrix(teacher["features"]) - matrix(own["features"])
    return 0.7 * logits + 0.3 * tf.reduce_mean(gap**2)


def by_hand(nets, edges, batches, sequential=False):
    """The steps of mutual learning without the package's learner; batch statistics once a step."""
    optimizers = [adam() for _ in nets]
    history = []
    for images, labels in batches:
        said = [net(images, training=True) for net in nets]
        settled = [[v.numpy() for v in net.non_trainable_variables] for net in nets]
        constants = [{k: v.numpy() for k, v in out.items()} for out in said]
        total = 0.0
        updates = []
        for k, net in enumerate(nets):
            teachers = [a for a, b in edges if b == k]
            with tf.GradientTape() as tape:
                out = net(images, training=True)
                loss = own_loss(labels, out)
                loss += sum(likeness(constants[a], out) for a in teachers) / len(teachers)
            updates.append(tape.gradient(loss, net.trainable_variables))
            total += float(loss)
            if sequential:
                optimizers[k].apply_gradients(zip(updates[k], net.trainable_variables, strict=True))
                constants[k] = {n: v.numpy() for n, v in net(images, training=True).items()}
        if not sequential:
            for net, optimizer, gradient in zip(nets, optimizers, updates, strict=True):
                optimizer.apply_gradients(zip(gradient, net.trainable_variables, strict=True))
        for net, values in zip(nets, settled, strict=True):
            for variable, value in zip(net.non_trainable_variables, values, strict=True):
                variable.assign(value)
        history.append(total)
    return history


ALL_OF_TWO = [(0, 1), (1, 0)]
ALL_OF_THREE = [(a, b) for a in range(3) for b in range(3) if a != b]
RING = [(2, 0), (0, 1), (1, 2)]


@pytest.mark.parametrize("update", ["simultaneous", "sequential"])
@pytest.mark.parametrize(
    ("count", "given", "edges"),
    [
        (2, "all", ALL_OF_TWO),
        (3, "all", ALL_OF_THREE),
        (3, "ring", RING),
        (3, [("member3", "member1"), ("member1", "member2"), ("member2", "member3")], RING),
    ],
    ids=["two", "three", "ring", "list"],
)
def test_steps_equal_the_steps_written_out(update, count, given, edges) -> None:
    learner = mutual(count, update=update, edges=given)
    batches = [batch(seed) for seed in range(3)]
    logs = [learner.train_on_batch(*some, return_dict=True) for some in batches]
    nets = members(count)
    truth = by_hand(nets, edges, batches, sequential=update == "sequential")
    assert logs[0]["loss"] == pytest.approx(truth[0], rel=1e-5)
    for net, ours in zip(nets, learner.members.values(), strict=True):
        for a, b in zip(net.get_weights(), ours.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=3e-5)
