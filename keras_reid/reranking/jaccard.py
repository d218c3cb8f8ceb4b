"""k-reciprocal encodings of images, and the Jaccard distances between them, sparse throughout."""

import tensorflow as tf

from keras_reid.nearest.blocks import Progress, in_blocks
from keras_reid.nearest.graph import FeatureDistances, Size
from keras_reid.reranking import sparse
from keras_reid.reranking.neighbors import INDICES, NUMBER, VALUES, nearest

MASK = tf.TensorSpec([None, None], tf.bool)
BLOCK_ELEMENTS = 2**23  # elements of a block of Jaccard distances, 32 MiB, or of lists


def encodings(
    source: FeatureDistances, k1: int, k2: int, progress: Progress | None = None
) -> tuple["Overlaps", tf.Tensor]:
    """Return two values: the overlaps of V (n, n), and the largest squared distances (n,).

    Each row of V sums to 1.
    """
    index, squared, largest = nearest(source, max(k1 + 1, k2), progress)
    members = expanded_reciprocal(index[:, : k1 + 1], k1)
    row, squared, missing, first, second = _squared(members, index, squared)
    squared = tf.tensor_scatter_nd_update(squared, missing, source.pairs(first, second, "float32"))
    v, transposed = _encoded(row, members.column, squared, largest, index[:, :k2])
    return Overlaps(v, transposed, source.size), largest


@tf.function(autograph=False, input_signature=[sparse.ROWS, INDICES, VALUES])
def _squared(
    members: sparse.CsrRows, index: tf.Tensor, squared: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    """Return the row and the squared distance of each member, and the members without a distance.

    Only distances to neighbors are known. The other members follow: their places (m, 1), and the
    two images of each place.
    """
    row = sparse.row_numbers(members)
    same = tf.gather(index, row) == members.column[:, None]
    known = tf.reduce_sum(tf.where(same, tf.gather(squared, row), 0), axis=1)
    missing = tf.where(~tf.reduce_any(same, axis=1))
    first, second = (tf.gather(side, missing[:, 0]) for side in (row, members.column))
    return row, known, missing, first, second


@tf.function(
    autograph=False,
    input_signature=[sparse.PLACE, sparse.PLACE, sparse.VALUE, sparse.VALUE, INDICES],
)
def _encoded(
    row: tf.Tensor, column: tf.Tensor, squared: tf.Tensor, largest: tf.Tensor, near: tf.Tensor
) -> tuple[sparse.CsrRows, sparse.CsrRows]:
    """Return V, `exp(−D)` averaged over the images `near` (n, k2), and its transpose."""
    count, width = tf.unstack(tf.shape(near))
    scale = tf.where(largest > 0, largest, 1)
    weight = tf.exp(-squared / tf.gather(scale, row))
    weight /= tf.gather(tf.math.segment_sum(weight, row), row)
    v = sparse.matrix(row, column, weight, tf.stack([count, count]))
    fraction = tf.fill(tf.shape(near), 1 / tf.cast(width, tf.float32))
    v = sparse.product(sparse.lists(near, fraction, count), v)
    return sparse.rows(v), sparse.rows(sparse.transpose(v))


class Overlaps:
    """`1 − Σ min(V_i, V_j) / Σ max(V_i, V_j)` of the rows of V, computed in blocks.

    Each row of V sums to 1. Only pairs that share a column of V are compared: the columns are an
    inverted index.
    """

    def __init__(self, rows: sparse.CsrRows, columns: sparse.CsrRows, size: Size):
        self.rows, self.columns, self.size = rows, columns, size

    def distances(self, start: Size, stop: Size) -> tf.Tensor:
        """Return the Jaccard distances of rows start to stop to all rows (b, n)."""
        return _overlaps(self.rows, self.columns, start, stop)


@tf.function(autograph=False, input_signature=[sparse.ROWS, sparse.ROWS, NUMBER, NUMBER])
def _overlaps(
    rows: sparse.CsrRows, columns: sparse.CsrRows, start: tf.Tensor, stop: tf.Tensor
) -> tf.Tensor:
    size = tf.shape(rows.begin)[0] - 1
    first, last = rows.begin[start], rows.begin[stop]
    lengths = rows.begin[start + 1 : stop + 1] - rows.begin[start:stop]
    row = tf.repeat(tf.range(stop - start), lengths)
    column, value = rows.column[first:last], rows.value[first:last]
    # Each element of these rows meets the whole list of its column.
    begin = tf.gather(columns.begin, column)
    met = tf.gather(columns.begin, column + 1) - begin
    shift = begin - tf.cumsum(met, exclusive=True)
    at = tf.range(tf.reduce_sum(met)) + tf.repeat(shift, met)
    smaller = tf.minimum(tf.gather(columns.value, at), tf.repeat(value, met))
    pair = tf.repeat(row * size, met) + tf.gather(columns.column, at)
    shared = tf.math.unsorted_segment_sum(smaller, pair, (stop - start) * size)
    shared = tf.reshape(shared, (stop - start, size))
    return tf.maximum(1 - shared / (2 - shared), 0)


def expanded_reciprocal(order: tf.Tensor, k1: int) -> sparse.CsrRows:
    """Return a sparse matrix; the columns of row i are R* of image i."""
    half = order[:, : _half(k1)]
    order, half = tf.sort(order, axis=1), tf.sort(half, axis=1)  # sets; sparse sums need them so
    near, nearer = reciprocal(order), reciprocal(half)
    size = tf.reduce_sum(tf.cast(nearer, tf.int32), axis=1)
    nearer_index = tf.where(nearer, half, -2)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        return (_accepted(order[start:stop], near[start:stop], nearer_index, size),)

    width = tf.shape(order)[1]
    step = tf.maximum(1, BLOCK_ELEMENTS // (width * width * tf.shape(half)[1]))
    (accepted,) = in_blocks(work, tf.shape(order)[0], step, (MASK,))
    return _joined(order, near, half, nearer, accepted)


@tf.function(autograph=False, input_signature=[INDICES, MASK, INDICES, sparse.PLACE])
def _accepted(
    block: tf.Tensor, near: tf.Tensor, nearer_index: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    """Return a mask (b, k) of the members that share over two thirds of their `size` members."""
    own = tf.where(near, block, -1)
    theirs = tf.gather(nearer_index, block)  # (b, k, h)
    shared = tf.reduce_any(theirs[..., None] == own[:, None, None], axis=3)
    shared = tf.reduce_sum(tf.cast(shared, tf.int32), axis=2)
    return near & (3 * shared > 2 * tf.gather(size, block))


@tf.function(autograph=False, input_signature=[INDICES, MASK, INDICES, MASK, MASK])
def _joined(
    order: tf.Tensor, near: tf.Tensor, half: tf.Tensor, nearer: tf.Tensor, accepted: tf.Tensor
) -> sparse.CsrRows:
    """Join each row of R with the rows of H that it accepts: `(I E) · (R above H)`."""
    count, width = tf.unstack(tf.shape(order))
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
        return (_mutual(order, start, stop),)

    step = tf.maximum(1, BLOCK_ELEMENTS // tf.shape(order)[1] ** 2)
    return in_blocks(work, tf.shape(order)[0], step, (MASK,))[0]


@tf.function(autograph=False, input_signature=[INDICES, NUMBER, NUMBER])
def _mutual(order: tf.Tensor, start: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    back = tf.gather(order, order[start:stop])
    return tf.reduce_any(back == tf.range(start, stop)[:, None, None], axis=2)
