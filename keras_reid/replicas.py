"""The batch of all replicas of a training that is distributed."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any


class Joint(NamedTuple):
    """The rows of all replicas, in their order, and where this replica's own begin."""

    rows: Tensor
    start: Tensor


def gather(rows: Tensor) -> Joint:
    """All replicas' rows `(r · b, …)` of `rows` `(b, …)`; gradients flow back to every replica.

    Under TensorFlow the replicas are those of the `tf.distribute` strategy whose step is running.
    Under JAX a batch that `keras.distribution` has split is already seen whole.

    Raises:
        NotImplementedError: under the PyTorch back end, if several processes train together.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _gather_tensorflow(rows)
    if backend == "torch":
        _refuse_processes()
    return Joint(rows, ops.zeros((), "int32"))


def _gather_tensorflow(rows: Tensor) -> Joint:
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return Joint(rows, tf.zeros((), tf.int32))
    owner = tf.fill(tf.shape(rows)[:1], replica.replica_id_in_sync_group)
    own = tf.equal(replica.all_gather(owner, axis=0), replica.replica_id_in_sync_group)
    start = tf.argmax(tf.cast(own, tf.int32), output_type=tf.int32)
    # The replicas may have different numbers of rows, but nothing else is unknown.
    joint = tf.ensure_shape(replica.all_gather(rows, axis=0), (None, *rows.shape[1:]))
    return Joint(joint, start)


def _refuse_processes() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise NotImplementedError(
            "gather=True mines over the replicas of TensorFlow and JAX, but the back end is "
            "PyTorch with several processes: use gather=False there."
        )


def count() -> int:
    """Return the number of replicas that train together."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Return the context in which variables of a model are created on all replicas."""
    return (
        model.distribute_strategy.scope()
        if keras.backend.backend() == "tensorflow"
        else nullcontext()
    )


def logs(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the logs of a step in the shape that Keras expects.

    Keras concatenates the results of several workers along an axis, which scalars do not have.
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
