"""The k nearest images to each image, exactly, in blocks, without the whole matrix."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_reid.nearest.blocks import Progress, folded, in_blocks
from keras_reid.nearest.graph import GROUP, FeatureDistances, Size, smallest
from keras_reid.reranking import sparse

# Elements of a block of squared distances, 64 MiB. There are at least BLOCKS blocks, because later
# blocks reuse distances of earlier ones. A block has at least LEAST images: each product arranges
# all features again, so small products are slow.
BLOCK_ELEMENTS = 2**24
BLOCKS = 8
LEAST = 768
NUMBER = tf.TensorSpec([], tf.int32)
INDICES, VALUES = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.float32)
EXACT = tf.TensorSpec([None], tf.float64)
FEW = 8  # times k groups: columns up to here are sorted in 0.6 to 0.9 of the time of `smallest`
SPARE, MORE = 8, 64  # candidates beyond k, and beyond k if these are too close to be ordered


class Neighbors(NamedTuple):
    """The k nearest images to each of n images, itself first, equally near ones by index.

    Attributes:
        index: int32 (n, k).
        squared: float32 (n, k), squared distances.
        largest: float32 (n,), the largest squared distance of each row.
    """

    index: tf.Tensor
    squared: tf.Tensor
    largest: tf.Tensor


def nearest(source: FeatureDistances, k: int, progress: Progress | None = None) -> Neighbors:
    """Return the `min(k, n)` nearest images to each image.

    Candidates come from blocks of `source.columns`. If their rounding leaves open which candidate
    is nearer, distances computed in float64 decide. Only if more than MORE images are
    within the rounding of the k-th does their order in `columns` decide. `squared` is as `columns`
    has it, 0 for the image itself.
    """
    k = tf.minimum(k, source.size) if not isinstance(source.size, int) else min(k, source.size)
    lists = _candidates(source, tf.minimum(k + SPARE, source.size), progress)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor, tf.Tensor]:
        candidates = lists.index[start:stop], lists.squared[start:stop]
        return _settled(source, start, stop, *candidates, k)

    blocks = _block_images(source.size)
    index, squared = in_blocks(work, source.size, blocks, (INDICES, VALUES))
    return Neighbors(index, squared, lists.largest)


def _block_images(count: Size) -> Size:
    images = tf.minimum(BLOCK_ELEMENTS // count, count // BLOCKS)
    images = tf.maximum(LEAST, images // GROUP * GROUP)
    return tf.where(count < 2 * LEAST, tf.maximum(count, 1), images)


def _smallest(values: tf.Tensor, k: Size) -> tuple[tf.Tensor, tf.Tensor]:
    """Return `smallest(values, k)`, by sorting all values of short columns."""
    rows = tf.shape(values)[0]

    def plain() -> tuple[tf.Tensor, tf.Tensor]:
        negative, places = tf.math.top_k(-tf.transpose(values), tf.minimum(k, rows))
        return places, -negative

    return tf.cond(rows <= FEW * k * GROUP, plain, lambda: smallest(values, k))


def _candidates(source: FeatureDistances, k: Size, progress: Progress | None) -> Neighbors:
    """Return the k nearest images by the distances of `columns`, including the image itself.

    Distances are symmetric, so a block of columns begins at its diagonal. Earlier blocks have the
    distances above it.
    """
    count = source.size

    def work(start: Size, stop: Size, *lists: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return _extended(source.columns(start, stop, start), start, stop, *lists)

    lists = tf.zeros([count, k], tf.int32), tf.fill([count, k], np.inf), tf.zeros([count])
    return Neighbors(*folded(work, count, _block_images(count), lists, progress))


@tf.function(
    autograph=False, input_signature=[VALUES, NUMBER, NUMBER, INDICES, VALUES, sparse.VALUE]
)
def _extended(
    block: tf.Tensor,
    start: tf.Tensor,
    stop: tf.Tensor,
    index: tf.Tensor,
    squared: tf.Tensor,
    largest: tf.Tensor,
) -> tuple[tf.Tensor, ...]:
    """Return the lists of all images, joined with a block of columns from its diagonal on."""
    count, k = tf.unstack(tf.shape(index))
    below = block[stop - start : count - start]
    parts = slice(start), slice(start, stop), slice(stop, None)
    before, own, later = (Neighbors(index[at], squared[at], largest[at]) for at in parts)
    own = _with(own, start, *_smallest(block, k), tf.reduce_max(block[: count - start], axis=0))
    nearer = _nearer(below, later.squared[:, -1:], k)
    later = _with(later, start, *nearer, tf.reduce_max(below, axis=1))
    return tuple(tf.concat(three, axis=0) for three in zip(before, own, later, strict=True))


def _with(
    known: Neighbors, start: Size, index: tf.Tensor, squared: tf.Tensor, largest: tf.Tensor
) -> Neighbors:
    """Join images (b, c), numbered from `start` and after all known ones, to the known ones."""
    k = tf.shape(known.index)[1]
    index = tf.concat([known.index, index + start], axis=1)
    squared = tf.concat([known.squared, squared], axis=1)
    order = tf.math.top_k(-squared, k).indices  # the first of equal ones
    index, squared = (tf.gather(both, order, batch_dims=1) for both in (index, squared))
    return Neighbors(index, squared, tf.maximum(known.largest, largest))


def _nearer(squared: tf.Tensor, bound: tf.Tensor, k: Size) -> tuple[tf.Tensor, tf.Tensor]:
    """Return index and value of the elements below the bound (b, 1), or of the k smallest."""
    below = squared < bound
    count = tf.reduce_max(tf.reduce_sum(tf.cast(below, tf.int32), axis=1))

    def few() -> tuple[tf.Tensor, tf.Tensor]:
        at = tf.where(below)
        lists = tf.RaggedTensor.from_value_rowids(
            tf.cast(at[:, 1], tf.int32), at[:, 0], tf.shape(below, tf.int64)[0], validate=False
        )
        values = lists.with_values(tf.gather_nd(squared, at))
        return lists.to_tensor(), values.to_tensor(np.inf)

    return tf.cond(count > 2 * k, lambda: _smallest(tf.transpose(squared), k), few)


def _settled(
    source: FeatureDistances, start: Size, stop: Size, index: tf.Tensor, values: tf.Tensor, k: Size
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the k nearest of candidates (b, c); float64 decides the order of close values."""
    slack = source.slack(start, stop, values[:, k - 1 : k])
    close = values[:, -1:] - values[:, k - 1 : k] <= slack
    wider = tf.minimum(k + MORE, source.size)
    index, values = tf.cond(
        tf.logical_and(wider > tf.shape(values)[1], tf.reduce_any(close)),
        lambda: _smallest(source.columns(start, stop), wider),
        lambda: (index, values),
    )
    index, values, rows, images, candidates = _unsettled(index, values, slack, start)
    exact = source.pairs(tf.reshape(images, [-1]), tf.reshape(candidates, [-1]), "float64")
    index, values = _by_distance(index, values, rows, images, candidates, exact)
    return index[:, :k], values[:, :k]


@tf.function(autograph=False, input_signature=[INDICES, VALUES, VALUES, NUMBER])
def _unsettled(
    index: tf.Tensor, values: tf.Tensor, slack: tf.Tensor, start: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Return candidates (b, c), each image first, and the rows (f,) with an open order.

    Then follow the images of these rows and their candidates in the order of their index, (f, c).
    """
    itself = start + tf.range(tf.shape(index)[0])[:, None]
    index, values = _itself_first(index, values, itself)
    close = values[:, 2:] - values[:, 1:-1] <= slack  # column c: of c + 1 and c + 2; 0 is itself
    rows = tf.cast(tf.where(tf.reduce_any(close, axis=1))[:, 0], tf.int32)
    candidates = tf.sort(tf.gather(index, rows), axis=1)
    images = tf.broadcast_to(start + rows[:, None], tf.shape(candidates))
    return index, values, rows, images, candidates


@tf.function(
    autograph=False, input_signature=[INDICES, VALUES, sparse.PLACE, INDICES, INDICES, EXACT]
)
def _by_distance(
    index: tf.Tensor,
    values: tf.Tensor,
    rows: tf.Tensor,
    images: tf.Tensor,
    candidates: tf.Tensor,
    exact: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Order the candidates (b, c) of some rows: themselves, then by exact distance, then index."""
    exact = tf.reshape(exact, tf.shape(candidates))
    exact = tf.where(candidates == images, -tf.ones_like(exact), exact)
    order = tf.argsort(exact, axis=1, stable=True)
    by_index = tf.argsort(tf.gather(index, rows), axis=1)
    order = tf.gather(by_index, order, batch_dims=1)
    index, values = (
        tf.tensor_scatter_nd_update(
            both, rows[:, None], tf.gather(tf.gather(both, rows), order, batch_dims=1)
        )
        for both in (index, values)
    )
    return index, tf.maximum(values, 0)


def _itself_first(
    index: tf.Tensor, values: tf.Tensor, itself: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return candidates (b, c) with the row's own image first; it replaces the last if missing."""
    own = index == itself
    last = tf.range(tf.shape(index)[1]) == tf.shape(index)[1] - 1
    own = tf.logical_or(own, tf.logical_and(last, ~tf.reduce_any(own, axis=1, keepdims=True)))
    index, values = tf.where(own, itself, index), tf.where(own, -1.0, values)
    order = tf.argsort(values, axis=1, stable=True)
    return tf.gather(index, order, batch_dims=1), tf.gather(values, order, batch_dims=1)
