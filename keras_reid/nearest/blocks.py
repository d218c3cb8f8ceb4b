"""Work on many rows, a block at a time, in Python and inside a tf.function alike."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Progress = Callable[[int, int], None]


def in_blocks(
    work: Callable[..., tuple[tf.Tensor, ...]],
    rows: int | tf.Tensor,
    size: int | tf.Tensor,
    like: tuple[tf.TensorSpec, ...],
) -> tuple[tf.Tensor, ...]:
    """Return the tensors of `work(start, stop)` for blocks of `size` rows, joined along axis 0.

    `like` are the types and shapes of the tensors. Inside a tf.function this is a loop of the
    graph, one block in memory at a time.
    """
    if tf.executing_eagerly():  # faster than a loop with arrays of tensors
        starts = range(0, max(1, int(rows)), int(size))  # once for no rows, too
        parts = [work(start, min(start + int(size), int(rows))) for start in starts]
        return tuple(tf.concat(part, axis=0) for part in zip(*parts, strict=True))

    blocks = tf.maximum(1, -(-rows // size))
    arrays = tuple(
        tf.TensorArray(spec.dtype, blocks, infer_shape=False, element_shape=spec.shape)
        for spec in like
    )

    def one(block: tf.Tensor, *arrays: tf.TensorArray) -> tuple[Any, ...]:
        done = work(block * size, tf.minimum((block + 1) * size, rows))
        written = (array.write(block, part) for array, part in zip(arrays, done, strict=True))
        return block + 1, *written

    _, *arrays = tf.while_loop(
        lambda block, *_: block < blocks, one, (0, *arrays), parallel_iterations=1
    )
    joined = tuple(array.concat() for array in arrays)
    for part, spec in zip(joined, like, strict=True):
        part.set_shape(spec.shape)
    return joined


def folded(
    work: Callable[..., tuple[tf.Tensor, ...]],
    rows: int | tf.Tensor,
    size: int | tf.Tensor,
    state: tuple[tf.Tensor, ...],
    progress: Progress | None = None,
) -> tuple[tf.Tensor, ...]:
    """Return the last `state = work(start, stop, *state)`, for blocks of `size` rows.

    `progress(done, rows)` is called after each block, outside of a tf.function.
    """
    if tf.executing_eagerly():
        for start in range(0, int(rows), int(size)):
            stop = min(start + int(size), int(rows))
            state = work(start, stop, *state)
            if progress:
                progress(stop, int(rows))
        return state

    def one(start: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        stop = tf.minimum(start + size, rows)
        return stop, *work(start, stop, *state)

    shapes = tf.TensorShape([]), *(tf.TensorShape([None] * part.shape.rank) for part in state)
    return tf.while_loop(
        lambda start, *_: start < rows, one, (0, *state), shapes, parallel_iterations=1
    )[1:]
