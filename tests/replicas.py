"""Train one step per loss on one replica and on two, and print the weights as JSON.

Run as a program, because logical devices are fixed before TensorFlow starts. The answer is
`{"same": {name: [one, two]}, "halved": {name: [one, two]}}`:

- same: both replicas see the batch of the one, so that each mines the same comparisons;
- halved: each replica sees a half of it, and a loss that compares images gathers.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import catalogue
import keras
import numpy as np
import tensorflow as tf

LABELS = np.repeat(np.arange(4), 3)[np.random.default_rng(1).permutation(12)]
UNITS = 6  # as the attributes of the catalogue have
TEACHER = np.random.default_rng(3).normal(size=(12, UNITS)).astype("float32")


def weights_after_one_step(
    strategy: tf.distribute.Strategy, built: dict[str, keras.losses.Loss], copies: int
) -> dict[str, list[float]]:
    """One model with a kernel for each loss, so that no loss sees the step of another."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 4)).astype("float32")
    with strategy.scope():
        inputs = keras.Input((4,))
        kernels = {name: keras.layers.Dense(units(name), use_bias=False) for name in built}
        model = keras.Model(inputs, {name: kernel(inputs) for name, kernel in kernels.items()})
        model.compile(keras.optimizers.SGD(0.5), built)
    for name, kernel in kernels.items():
        kernel.set_weights([np.random.default_rng(2).normal(size=(4, units(name)))])
    labels = {name: np.concatenate([targets(name)] * copies) for name in kernels}
    data = tf.data.Dataset.from_tensor_slices((np.tile(x, (copies, 1)), labels))
    model.fit(data.batch(12 * copies), shuffle=False, verbose=0)
    return {name: kernel.get_weights()[0].ravel().tolist() for name, kernel in kernels.items()}


def targets(name: str) -> np.ndarray:
    return TEACHER if name in catalogue.DISTILLATION_LOSSES else LABELS


def units(name: str) -> int:
    if name in catalogue.DISTILLATION_LOSSES:
        return UNITS
    return catalogue.LOSSES[name].prepare(np.ones((1, UNITS))).shape[1]


def answer_of(program: str) -> Any:
    """Run a program of this folder and return its JSON output."""
    here = Path(__file__).parent
    paths = os.pathsep.join(
        [
            *map(str, (here.parent, here / "oracles", here / "unit")),
            os.environ.get("PYTHONPATH", ""),
        ]
    )
    done = subprocess.run(
        [sys.executable, str(here / program)],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_and_two() -> tuple[tf.distribute.Strategy, tf.distribute.Strategy]:
    """Strategies of one replica and of two; before TensorFlow has started."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    one = tf.distribute.get_strategy()
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert two.num_replicas_in_sync == 2
    return one, two


def main() -> None:
    one, two = one_and_two()

    def compare(built: dict[str, keras.losses.Loss], copies: int) -> dict[str, list[list[float]]]:
        on_one = weights_after_one_step(one, built, 1)
        on_two = weights_after_one_step(two, built, copies)
        return {name: [on_one[name], on_two[name]] for name in built}

    cases = {name: catalogue.LOSSES[name] for name in catalogue.ONE_OF_EACH}
    cases |= {
        name: catalogue.DISTILLATION_LOSSES[name] for name in catalogue.ONE_OF_EACH_DISTILLATION
    }
    every = {name: case.loss() for name, case in cases.items()}
    gathering = {
        name: catalogue.LOSSES[name].loss(gather=True)
        for name in catalogue.ONE_OF_EACH
        if catalogue.LOSSES[name].metric
    }
    distilling = {
        name: case.loss(gather=True) if case.relates else case.loss()
        for name, case in catalogue.DISTILLATION_LOSSES.items()
        if name in catalogue.ONE_OF_EACH_DISTILLATION
    }
    halved = compare(gathering | distilling, 1)
    json.dump({"same": compare(every, 2), "halved": halved}, sys.stdout)


if __name__ == "__main__":
    main()
