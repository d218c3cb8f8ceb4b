"""Batches, scopes and logs of a distributed training run."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any


class GlobalBatch(NamedTuple):
    """Rows of all replicas in their order, and the index of the first row of this replica."""

    rows: Tensor
    start: Tensor


def gather(rows: Tensor) -> GlobalBatch:
    """Return the rows `(r · b, …)` of all replicas; gradients flow back to every replica.

    Under TensorFlow the replicas are those of the current `tf.distribute` strategy. Under JAX a
    batch that `keras.distribution` splits is already complete.

    Args:
        rows: values `(b, …)` of this replica; b can differ between replicas.

    Raises:
        NotImplementedError: under the PyTorch backend, if several processes train together.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _gather_tensorflow(rows)
    if backend == "torch":
        _refuse_processes()
    return GlobalBatch(rows, ops.zeros((), "int32"))


def _gather_tensorflow(rows: Tensor) -> GlobalBatch:
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return GlobalBatch(rows, tf.zeros((), tf.int32))
    owner = tf.fill(tf.shape(rows)[:1], replica.replica_id_in_sync_group)
    own = tf.equal(replica.all_gather(owner, axis=0), replica.replica_id_in_sync_group)
    start = tf.argmax(tf.cast(own, tf.int32), output_type=tf.int32)
    # The replicas may have different numbers of rows; all other sizes are static.
    joint = tf.ensure_shape(replica.all_gather(rows, axis=0), (None, *rows.shape[1:]))
    return GlobalBatch(joint, start)


def _refuse_processes() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise NotImplementedError(
            "gather=True is not supported by several processes of PyTorch. Use gather=False."
        )


def count() -> int:
    """Return the number of replicas that train together."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Return the context for the creation of variables of a model on all replicas."""
    return (
        model.distribute_strategy.scope()
        if keras.backend.backend() == "tensorflow"
        else nullcontext()
    )


def logs(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the logs of a step in the shape that Keras expects.

    Keras concatenates the results of several workers along an axis, which scalars do not have.

    Args:
        values: scalars by name.

    Returns:
        The scalars, with a shape of `(1,)` for several workers.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            return {name: tf.reshape(value, (1,)) for name, value in values.items()}
    return values


class BuiltByOwnImages:
    """Mixin of a model that `fit` builds from the images of its own worker.

    Keras averages the first batch over all replicas, which TensorFlow refuses for workers.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if iterator is not None:
            batch = next(next(iter(iterator))[2])
            own = self.distribute_strategy.experimental_local_results  # type: ignore[attr-defined]
            data_batch = keras.tree.map_structure(lambda values: own(values)[0], batch)
        super()._maybe_symbolic_build(data_batch=data_batch)  # type: ignore[misc]
