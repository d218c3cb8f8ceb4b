"""Replicas of a training run on the devices of one or several machines."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError, first_line, invalid
from keras_reid.training.registry import STRATEGIES


class Replicas:
    """Replicas that train one model together, each on its share of every batch.

    `"none"`: only this process; `"mirrored"`: each GPU of this machine, or each logical device
    of its CPU; `"multiworker"`: processes that run the same command. The variable TF_CONFIG lists
    their addresses and the number of this one (see `tf.distribute`). A step equals the step of one
    process with the whole batch: metric losses and batch statistics use all images.

    Args:
        name: `"none"`, `"mirrored"` or `"multiworker"`.
        batch: number of images of all replicas together.

    Raises:
        InputError: an unknown name, a missing or broken TF_CONFIG, or a batch that is not divisible
            by the number of replicas.
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
            fix = "Choose another num_identities_per_batch or num_instances."
            raise invalid("batch", f"divisible by {self.count} replicas", batch, fix)

    @property
    def count(self) -> int:
        """Number of replicas of all workers."""
        return int(self.strategy.num_replicas_in_sync)

    @property
    def is_chief(self) -> bool:
        """True for the worker that writes files."""
        return self.number == 0

    @contextmanager
    def synchronized(self, models: Sequence[keras.Model]) -> Iterator[None]:
        """Synchronize the batch statistics of all replicas within the block.

        Args:
            models: models that are trained.
        """
        nested = (layer for model in models for layer in _layers(model)) if self.count > 1 else ()
        layers = [layer for layer in nested if isinstance(layer, keras.layers.BatchNormalization)]
        before = [layer.synchronized for layer in layers]
        for layer in layers:
            layer.synchronized = True
        try:
            yield
        finally:
            for layer, value in zip(layers, before, strict=True):
                layer.synchronized = value

    def shared(self, batches: tf.data.Dataset, size: int) -> tf.data.Dataset:
        """Return the share of this worker of each batch of `size`.

        Within a process TensorFlow divides a batch among its replicas. Different workers would get
        different batches. A worker therefore takes its share of several batches and combines them
        to one of `size`, which is divided again.

        Args:
            batches: batches of tensors `(size, …)`, the same on all workers.
            size: number of images of a batch.
        """
        if self.workers == 1:
            return batches
        own = size // self.workers

        def share(batches: Any) -> Any:
            rows = batches[:, self.number * own : (self.number + 1) * own]
            return tf.reshape(rows, (size, *batches.shape[2:]))

        batches = batches.batch(self.workers, drop_remainder=True)
        batches = batches.map(lambda *parts: keras.tree.map_structure(share, parts))
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return batches.with_options(options)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Convert a lost-worker error to `InputError`."""
        try:
            yield
        except tf.errors.OpError as error:
            if self.workers == 1:
                raise
            raise InputError(
                f"One of {self.workers} workers is lost: {first_line(error)}. Start all again with "
                "the same commands to continue after the last complete epoch."
            ) from error


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _devices() -> list[str] | None:
    """Return the logical devices of a machine without a GPU; None: TensorFlow uses the GPUs."""
    if tf.config.list_logical_devices("GPU"):
        return None
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def _cluster() -> tuple[int, int]:
    """Return the number of workers, and the index of this one."""
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        return len(config["cluster"]["worker"]), int(config["task"]["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            'The variable TF_CONFIG must be set for each worker, such as {"cluster": {"worker": '
            '["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}, '
            f"got {text[:80]!r}."
        ) from error
