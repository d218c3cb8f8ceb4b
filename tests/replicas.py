"""Trains one step of each loss on one and on two replicas; prints {name: [one, two]} as JSON.

Run as a program, because logical devices are fixed before TensorFlow starts. Both replicas of the
second run see the batch of the first, so that mining on each replica finds the same comparisons.
"""

import json
import sys

import catalogue
import keras
import numpy as np
import tensorflow as tf

LABELS = np.repeat(np.arange(4), 3)


def weights_after_one_step(strategy: tf.distribute.Strategy, copies: int) -> dict[str, list[float]]:
    """One model with a kernel for each loss, so that no loss sees the step of another."""
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(12, 4)).astype("float32"), rng.normal(size=(4, 5))
    with strategy.scope():
        inputs = keras.Input((4,))
        layers = {name: keras.layers.Dense(5, use_bias=False) for name in catalogue.LOSSES}
        model = keras.Model(inputs, {name: layer(inputs) for name, layer in layers.items()})
        losses = {name: case.loss() for name, case in catalogue.LOSSES.items()}
        model.compile(keras.optimizers.SGD(0.5), losses)
    model.set_weights([kernel] * len(layers))
    labels = dict.fromkeys(layers, np.tile(LABELS, copies))
    data = tf.data.Dataset.from_tensor_slices((np.tile(x, (copies, 1)), labels))
    model.fit(data.batch(12 * copies), shuffle=False, verbose=0)
    return {name: layer.get_weights()[0].ravel().tolist() for name, layer in layers.items()}


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert two.num_replicas_in_sync == 2
    on_one = weights_after_one_step(tf.distribute.get_strategy(), copies=1)
    on_two = weights_after_one_step(two, copies=2)
    json.dump({name: [on_one[name], on_two[name]] for name in on_one}, sys.stdout)


if __name__ == "__main__":
    main()
