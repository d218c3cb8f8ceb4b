"""Train one model or mutual learners on one replica and on two, and print results as JSON.

Run as a program, because logical devices are fixed before TensorFlow starts. Both replicas see the
batch of the one, so that the batch statistics and the relations of its images are the same. The
answer is `{"alone" or update: [[loss, weights] on one, [loss, weights] on two]}`.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf
from replicas import one_and_two
from test_mutual import DISTILLED, OWN, batch, build

from keras_reid.training import MutualLearner


def trained(strategy: tf.distribute.Strategy, copies: int, how: str) -> tuple[float, list]:
    with strategy.scope():
        nets = [build(seed) for seed in range(1 if how == "alone" else 2)]
        optimizer = keras.optimizers.Adam(1e-3, epsilon=1e-3)
        if how == "alone":
            learner = nets[0]
            learner.compile(optimizer, **OWN)
        else:
            learner = MutualLearner(nets, update=how, teachers=[build(5)], ramp_up=2)
            learner.compile(optimizer, **OWN, **DISTILLED)
    images, labels = batch()
    joint = (np.tile(images, (copies, 1, 1, 1)), {"identity": np.tile(labels["identity"], copies)})
    data = tf.data.Dataset.from_tensors(joint).repeat(2)
    history = learner.fit(data, shuffle=False, verbose=0).history
    weights = [variable.numpy().ravel() for net in nets for variable in net.weights]
    return history["loss"][-1], np.concatenate(weights).tolist()


def main() -> None:
    one, two = one_and_two()
    answer = {
        how: [trained(one, 1, how), trained(two, 2, how)]
        for how in ("alone", "simultaneous", "sequential")
    }
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
