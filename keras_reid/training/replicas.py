"""Replicas of a training: on the devices of this machine, or of several machines."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError, first_line
from keras_reid.training.registry import STRATEGIES


class Replicas:
    """The replicas that train one model together, each on its share of every batch.

    `"none"`: this process alone; `"mirrored"`: each GPU of this machine, or each logical device
    of its CPU; `"multiworker"`: processes that each run the same command, of which the variable
    TF_CONFIG says where all are and which one this is (see `tf.distribute`). A step is that of one
    process with the whole batch: metric losses compare all of it, and batch statistics are of all.

    Args:
        name: of these.
        batch: images of all replicas together.

    Raises:
        InputError: an unknown name, no or a broken TF_CONFIG for several workers, or a batch that
            cannot be shared out evenly.
    """

    def __init__(self, name: str = "none", batch: int = 0) -> None:
        checks.one_of(STRATEGIES, strategy=name)
        self.name = name
        self.workers, self.number = 1, 0
        if name == "multiworker":
            self.workers, self.number = _cluster()
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        elif name == "mirrored":
            self.strategy = tf.distribute.MirroredStrategy(_devices())
        else:
            self.strategy = tf.distribute.get_strategy()
        if batch % self.count:
            raise InputError(
                f"each of {self.count} replicas has an equal share of a batch: received {batch} "
                "images; choose another num_identities_per_batch or num_instances"
            )

    @property
    def count(self) -> int:
        """Of all workers together."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """Whether this worker is the one that writes."""
        return self.number == 0

    @contextmanager
    def synchronized(self, models: Sequence[keras.Model]) -> Iterator[None]:
        """Batch statistics of all replicas while these models learn."""
        found = (layer for model in models for layer in _layers(model)) if self.count > 1 else ()
        layers = [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]
        before = [layer.synchronized for layer in layers]
        for layer in layers:
            layer.synchronized = True
        try:
            yield
        finally:
            for layer, value in zip(layers, before, strict=True):
                layer.synchronized = value

    def shared(self, batches: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Batches of `size` as Keras gives them out: each replica the next images of a batch.

        Within a process TensorFlow divides a batch among its replicas. Between workers it would
        give them different batches, so a worker takes its own share of several, one after the
        other, as one of `size` that is divided again.
        """
        if self.workers == 1:
            return batches
        own = size // self.workers

        def share(batch: Any) -> Any:
            return batch[self.number * own : (self.number + 1) * own]

        def flat(several: Any) -> Any:
            return tf.reshape(several, (size, *several.shape[2:]))

        mapped = keras.tree.map_structure
        batches = batches.map(lambda *parts: mapped(share, parts))
        batches = batches.batch(self.workers, drop_remainder=True)
        batches = batches.map(lambda *parts: mapped(flat, parts))
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return batches.with_options(options)

    @contextmanager
    def together(self) -> Iterator[None]:
        """One sentence where another worker is lost."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.workers == 1:
                raise
            raise InputError(
                f"all {self.workers} workers train together, but one is gone "
                f"({first_line(error)}): start all again by the same commands, they go on after "
                "the last whole epoch"
            ) from error


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _devices() -> list[str] | None:
    """The logical devices of a machine without a GPU; None leaves GPUs to TensorFlow."""
    if tf.config.list_logical_devices("GPU"):
        return None
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def _cluster() -> tuple[int, int]:
    """How many workers there are, and the number of this one."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        said = json.loads(text)
        return len(said["cluster"]["worker"]), int(said["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            'several workers are told of each other by TF_CONFIG, such as {"cluster": {"worker": '
            '["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}: '
            f"received {text[:80]!r}; set it for each"
        ) from error
