"""Squared distances between rows of features in blocks, and the nearest rows, in TensorFlow.

All works inside a tf.function, except for `MappedDistances`.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.nearest.arrays import Points, Rows
from keras_reid.nearest.blocks import in_blocks

Size = Any  # int, or a scalar tensor inside a tf.function
Side = tuple[tf.Tensor, tf.Tensor]  # centered features and their squared lengths

GROUP = 16  # rows of `columns` come in whole groups of so many
KEPT_ELEMENTS = 2**26  # squared distances that are stored, 256 MiB
PAIR_ELEMENTS = 2**22  # numbers of features that distances of pairs read at a time
BLOCK_ELEMENTS = 2**22  # 16 MiB; larger ones go back to the system, which clears memory again
QUERIES = 256  # compared at a time; products of fewer are slower


class FeatureDistances:
    """`‖x − y‖²` between all rows of (n, d), expanded to `‖x‖² + ‖y‖² − 2x·y` and centered."""

    def __init__(self, features: tf.Tensor):
        self.features = features
        self.size, self.width = length(features, 0), length(features, 1)
        self.centered, self.norms = _centered(features)

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        """Return a matrix: a row for each image from `first` on, a column for start to stop.

        Rows of infinity pad the number of rows to a multiple of GROUP.
        """
        return _expanded(self._side(first, None), self._side(start, stop))

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        """Return the transposed result of `columns`."""
        return _expanded(self._side(start, stop), self._side(first, None))

    def _side(self, start: Size, stop: Size | None) -> Side:
        return self.centered[start:stop], self.norms[start:stop]

    def slack(self, start: Size, stop: Size, squared: tf.Tensor) -> tf.Tensor:
        """Return an upper bound (b, 1) of the rounding error, for values up to `squared` (b, 1)."""
        # A sum of d products in float32 was off by less than a quarter of this in 10⁸ pairs.
        rounding = np.finfo(np.float32).eps * tf.sqrt(tf.cast(self.width, tf.float32))
        return rounding * (self.norms[start:stop, None] + squared)

    def pairs(self, first: tf.Tensor, second: tf.Tensor, dtype: str) -> tf.Tensor:
        """Return distances between images `first` and `second` (m,), from exact differences."""

        def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
            x, y = (self._images(index[start:stop]) for index in (first, second))
            return (_squared(tf.cast(x, dtype), tf.cast(y, dtype)),)

        size = tf.maximum(1, PAIR_ELEMENTS // self.width)
        return in_blocks(work, length(first, 0), size, (tf.TensorSpec([None], dtype),))[0]

    def _images(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.features, index)


class KeptDistances(FeatureDistances):
    """`FeatureDistances` that stores the distances of the first queries, which are read twice.

    At most KEPT_ELEMENTS distances are stored.
    """

    def __init__(self, features: tf.Tensor, queries: Size):
        super().__init__(features)
        gallery = tf.maximum(self.size - queries, 1)
        self.queries = tf.convert_to_tensor(queries, tf.int32)
        self.known = tf.minimum(self.queries, KEPT_ELEMENTS // gallery)
        self.kept = super().columns(0, self.known, queries)

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        ends = (tf.convert_to_tensor(end, tf.int32) for end in (start, stop, first))
        return _partly_known(self.centered, self.norms, self.kept, self.known, self.queries, *ends)

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return tf.transpose(self.columns(start, stop, first))


class MappedDistances(FeatureDistances):
    """`FeatureDistances` of queries and a gallery in a mapped file.

    All images are read again for each block of rows. Not for a tf.function.
    """

    def __init__(self, query: np.ndarray, gallery: np.ndarray):
        self.parts, self.points = (query, gallery), Points(query, gallery)
        self.size, self.width = self.points.size, self.points.width
        missing = -self.size % GROUP
        self.norms = tf.constant(np.pad(self.points.norms, [0, missing], constant_values=np.inf))

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        start, stop, first = int(start), int(stop), int(first)
        images = tf.constant(-2 * self.points.centered(start, stop))
        squared = np.zeros((len(self.norms) - first, stop - start), np.float32)
        for begin, block in self.points.blocks(first):
            rows = slice(begin - first, begin - first + len(block))
            squared[rows] = tf.matmul(block, images, transpose_b=True)
        squared += self.norms[first:, None]
        squared += self.norms[start:stop]
        return tf.convert_to_tensor(squared)

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return tf.transpose(self.columns(start, stop, first))

    def _images(self, index: tf.Tensor) -> tf.Tensor:
        query, gallery = self.parts
        at = index.numpy()
        later = at >= len(query)
        images = np.empty((len(at), self.width), np.float32)
        images[~later], images[later] = query[at[~later]], gallery[at[later] - len(query)]
        return tf.convert_to_tensor(images)


@tf.function(autograph=False, reduce_retracing=True)
def _centered(features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the features less their mean, and their squared lengths.

    Rows of infinite length fill the last GROUP. One function, and blocks, so that no further tensor
    of the size of all features remains.
    """
    size = length(features, 0)
    missing = -size % GROUP
    centered = tf.pad(features, [[0, missing], [0, 0]]) - tf.reduce_mean(features, axis=0)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        return (tf.reduce_sum(tf.square(centered[start:stop]), axis=1),)

    rows = tf.maximum(1, PAIR_ELEMENTS // length(features, 1))
    (norms,) = in_blocks(work, size, rows, (tf.TensorSpec([None], tf.float32),))
    return centered, tf.pad(norms, [[0, missing]], constant_values=np.inf)


@tf.function(autograph=False, reduce_retracing=True)
def _expanded(left: Side, right: Side) -> tf.Tensor:
    """Return `|x − y|²` of two sides; one function, so that the sums need no memory of their own.

    TensorFlow multiplies up to five times as fast where `left` is the side of many images.
    """
    (x, x_norms), (y, y_norms) = left, right
    return -2 * tf.matmul(x, y, transpose_b=True) + x_norms[:, None] + y_norms


# Eight arguments, because a compiled function must receive tensors and not the object.
@tf.function(autograph=False, reduce_retracing=True)
def _partly_known(
    centered: tf.Tensor,
    norms: tf.Tensor,
    kept: tf.Tensor,
    known: tf.Tensor,
    queries: tf.Tensor,
    start: tf.Tensor,
    stop: tf.Tensor,
    first: tf.Tensor,
) -> tf.Tensor:
    """Return `_expanded`; columns up to `known` and rows from `queries` on are kept."""
    end, after = tf.clip_by_value(known, start, stop), tf.maximum(first, queries)

    def between(rows: slice, columns: slice) -> tf.Tensor:
        return _expanded((centered[rows], norms[rows]), (centered[columns], norms[columns]))

    def to_queries() -> tf.Tensor:
        return between(slice(first, after), slice(start, end))

    def looked_up() -> tf.Tensor:
        below = kept[after - queries :, start:end]
        return tf.cond(first < queries, lambda: tf.concat([to_queries(), below], 0), lambda: below)

    def computed() -> tf.Tensor:
        return between(slice(first, None), slice(end, stop))

    def both() -> tf.Tensor:
        return tf.concat([looked_up(), computed()], axis=1)

    return tf.cond(end == start, computed, lambda: tf.cond(end == stop, looked_up, both))


@tf.function(autograph=False, reduce_retracing=True)
def _squared(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.math.squared_difference(x, y), axis=1)


def length(x: tf.Tensor, axis: int) -> Size:
    """Return the length of an axis: a number if it is known, else a tensor."""
    static = x.shape[axis]
    return tf.shape(x)[axis] if static is None else static


def nearest_rows(query: tf.Tensor, gallery: tf.Tensor, k: Size) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the k nearest rows of a gallery (g, d) to each query (q, d): index and `|x − y|`.

    Equal distances are ordered by index. A row that is not finite is infinitely far from all.

    Returns:
        int32 and float32 (q, min(k, g)), nearest first.
    """
    (x, good_query), (y, good) = map(_finite, (query, gallery))
    count = tf.reduce_sum(tf.cast(good, tf.float32))
    center = tf.math.divide_no_nan(tf.reduce_sum(y, axis=0), count)  # less is lost to rounding
    x, y = x - center, y - center
    norms = tf.where(good, tf.reduce_sum(y * y, axis=1), np.inf)
    own = tf.reduce_sum(x * x, axis=1)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor, tf.Tensor]:
        squared = _expanded((y, norms), (x[start:stop], own[start:stop]))
        index = tf.sort(smallest(tf.maximum(squared, 0), tf.maximum(k, 0))[0], axis=1)
        difference = tf.gather(y, index) - x[start:stop, None]
        distance = tf.sqrt(tf.reduce_sum(difference * difference, axis=2))
        both = good_query[start:stop, None] & tf.gather(good, index)
        distance = tf.where(both, distance, np.inf)
        order = tf.argsort(distance, axis=1, stable=True)
        return tuple(tf.gather(part, order, batch_dims=1) for part in (index, distance))

    like = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.float32)
    return in_blocks(work, length(x, 0), QUERIES, like)


def smallest(values: tf.Tensor, k: Size, group: int = GROUP) -> tuple[tf.Tensor, tf.Tensor]:
    """Return places and values `(q, min(k, m))` of the k smallest of each column, ascending.

    Equal values are ordered by place. The k smallest lie in the k groups of neighboring rows with
    the smallest minima, so only `k · group` values of each column are sorted. For many rows and
    groups of 16 this takes a third of the time of `tf.math.top_k`.
    """
    rows, count = tf.shape(values)[0], tf.shape(values)[1]
    rest = -rows % group
    values = tf.cond(
        rest > 0,
        lambda: tf.pad(values, [(0, rest), (0, 0)], constant_values=np.inf),
        lambda: values,
    )
    minima = tf.reduce_min(tf.reshape(values, ((rows + rest) // group, group, count)), axis=1)
    _, chosen = tf.math.top_k(-tf.transpose(minima), tf.minimum(k, tf.shape(minima)[0]))
    chosen = tf.sort(chosen, axis=1)  # so that equal values stay in the order of their rows
    places = chosen[:, :, None] * group + tf.range(group)
    places = tf.reshape(places, (count, tf.shape(chosen)[1] * group))
    column = tf.broadcast_to(tf.range(count)[:, None], tf.shape(places))
    members = tf.gather_nd(values, tf.stack([places, column], axis=2))
    negative, at = tf.math.top_k(-members, tf.minimum(k, rows))
    return tf.gather(places, at, batch_dims=1), -negative


def matrix(rows: Rows) -> tf.Tensor:
    """Return all rows inside a tf.function, float32 (q, g)."""
    queries, gallery = rows.shape
    size = tf.maximum(1, BLOCK_ELEMENTS // gallery)
    like = (tf.TensorSpec([None, None], tf.float32),)
    return in_blocks(lambda *block: (rows.compute(*block),), queries, size, like)[0]


def unit(x: tf.Tensor) -> tf.Tensor:
    """Return the rows scaled to length 1; zero stays zero."""
    x = tf.math.divide_no_nan(x, tf.reduce_max(tf.abs(x), axis=1, keepdims=True))
    return tf.math.divide_no_nan(x, tf.norm(x, axis=1, keepdims=True))


def _finite(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the rows with zeros in place of NaN and infinity, and a mask of the finite rows."""
    good = tf.reduce_all(tf.math.is_finite(rows), axis=1)
    return tf.where(good[:, None], rows, 0.0), good
