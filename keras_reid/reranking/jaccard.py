"""k-reciprocal encodings of images, and the Jaccard distances between them, sparse throughout."""

import tensorflow as tf

from keras_reid.nearest.blocks import Progress, in_blocks
from keras_reid.nearest.graph import FeatureDistances, Size
from keras_reid.reranking import sparse
from keras_reid.reranking.neighbors import Neighbors, nearest

BLOCK_ELEMENTS = 2**23  # of a block of Jaccard distances, 32 MiB, or of compared lists


def encodings(
    source: FeatureDistances, k1: int, k2: int, progress: Progress | None = None
) -> tuple[sparse.Matrix, tf.Tensor]:
    """V (n, n), rows of sum 1, and the largest squared distance of each row (n,)."""
    neighbors = nearest(source, max(k1 + 1, k2), progress)
    members = expanded_reciprocal(neighbors.index[:, : k1 + 1], k1)
    row = sparse.row_numbers(members)
    scale = tf.where(neighbors.largest > 0, neighbors.largest, 1)
    squared = _squared(source, neighbors, row, members.column)
    weight = tf.exp(-squared / tf.gather(scale, row))
    weight /= tf.gather(tf.math.segment_sum(weight, row), row)
    shape = tf.stack([source.size, source.size])
    v = sparse.matrix(row, members.column, weight, shape)
    if k2 > 1:
        near = tf.sort(neighbors.index[:, :k2], axis=1)
        fraction = 1 / tf.cast(tf.shape(near)[1], tf.float32)
        v = sparse.product(
            sparse.elements(near, tf.ones_like(near, tf.bool), source.size, fraction), v
        )
    return v, neighbors.largest


def _squared(
    source: FeatureDistances, neighbors: Neighbors, row: tf.Tensor, column: tf.Tensor
) -> tf.Tensor:
    """Return squared distances of images `row` to `column` (m,), computed unless neighbors."""
    same = tf.gather(neighbors.index, row) == column[:, None]
    known = tf.reduce_sum(tf.where(same, tf.gather(neighbors.squared, row), 0), axis=1)
    missing = tf.where(~tf.reduce_any(same, axis=1))
    first, second = (tf.gather(side, missing[:, 0]) for side in (row, column))
    computed = source.pairs(first, second, "float32")
    return tf.tensor_scatter_nd_update(known, missing, computed)


class Overlaps:
    """`1 − Σ min(V_i, V_j) / Σ max(V_i, V_j)` of the rows of V, which sum to 1: in blocks.

    Only pairs that share a column are looked at: V's columns are its inverted index.
    """

    def __init__(self, v: sparse.Matrix, size: Size):
        self.size = size
        self.rows, self.columns = sparse.rows(v), sparse.rows(sparse.transpose(v))

    def distances(self, start: Size, stop: Size) -> tf.Tensor:
        """Jaccard distances of rows start to stop to all: (b, n)."""
        first, last = self.rows.begin[start], self.rows.begin[stop]
        lengths = self.rows.begin[start + 1 : stop + 1] - self.rows.begin[start:stop]
        row = tf.repeat(tf.range(stop - start), lengths)
        column, value = self.rows.column[first:last], self.rows.value[first:last]
        # Each element of these rows meets the whole list of its column.
        begin = tf.gather(self.columns.begin, column)
        met = tf.gather(self.columns.begin, column + 1) - begin
        shift = begin - tf.cumsum(met, exclusive=True)
        at = tf.range(tf.reduce_sum(met)) + tf.repeat(shift, met)
        smaller = tf.minimum(tf.gather(self.columns.value, at), tf.repeat(value, met))
        pair = tf.repeat(row * self.size, met) + tf.gather(self.columns.column, at)
        shared = tf.math.unsorted_segment_sum(smaller, pair, (stop - start) * self.size)
        shared = tf.reshape(shared, (stop - start, self.size))
        return tf.maximum(1 - shared / (2 - shared), 0)


def expanded_reciprocal(order: tf.Tensor, k1: int) -> sparse.CsrRows:
    """R* of each image: the columns of its row."""
    half = order[:, : _half(k1)]
    order, half = tf.sort(order, axis=1), tf.sort(half, axis=1)  # sets; sparse sums need them so
    near, nearer = reciprocal(order), reciprocal(half)
    size = tf.reduce_sum(tf.cast(nearer, tf.int32), axis=1)
    nearer_index = tf.where(nearer, half, -2)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        block = order[start:stop]
        own = tf.where(near[start:stop], block, -1)
        theirs = tf.gather(nearer_index, block)  # (b, k, h)
        shared = tf.reduce_any(theirs[..., None] == own[:, None, None], axis=3)
        shared = tf.reduce_sum(tf.cast(shared, tf.int32), axis=2)
        return (near[start:stop] & (3 * shared > 2 * tf.gather(size, block)),)

    width = tf.shape(order)[1]
    step = tf.maximum(1, BLOCK_ELEMENTS // (width * width * tf.shape(half)[1]))
    count = tf.shape(order)[0]
    (accepted,) = in_blocks(work, count, step, (tf.TensorSpec([None, None], tf.bool),))
    # Each row of R* joins its own row of R with the rows of H it accepts: (I E) · (R above H).
    itself = tf.range(count)[:, None]
    choice = tf.concat([itself, count + order], axis=1)
    chosen = tf.concat([tf.ones_like(itself, tf.bool), accepted], axis=1)
    missing = [[0, 0], [0, width - tf.shape(half)[1]]]
    lists = tf.concat([order, tf.pad(half, missing)], axis=0)
    listed = tf.concat([near, tf.pad(nearer, missing)], axis=0)
    joined = sparse.product(
        sparse.elements(choice, chosen, columns=2 * count),
        sparse.elements(lists, listed, columns=count),
    )
    return sparse.rows(joined)


def _half(k1: int) -> int:
    """Return half of k1 and the image itself; halves round to even, as in the authors' code."""
    return round(k1 / 2) + 1


def reciprocal(order: tf.Tensor) -> tf.Tensor:
    """Return a mask (n, k) of the neighbors that have the image as a neighbor."""

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        back = tf.gather(order, order[start:stop])
        return (tf.reduce_any(back == tf.range(start, stop)[:, None, None], axis=2),)

    step = tf.maximum(1, BLOCK_ELEMENTS // tf.shape(order)[1] ** 2)
    return in_blocks(work, tf.shape(order)[0], step, (tf.TensorSpec([None, None], tf.bool),))[0]
