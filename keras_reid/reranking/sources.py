"""Squared distances between all images, in blocks: of features, or given."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from keras_reid.reranking.blocks import in_blocks

Size = Any  # int, or a scalar tensor inside a tf.function
Side = tuple[tf.Tensor, tf.Tensor]  # centred features and their squared lengths

GROUP = 16  # rows of `columns` come in whole groups of so many
KEPT_ELEMENTS = 2**26  # of squared distances that are read twice, 256 MiB
PAIR_ELEMENTS = 2**22  # numbers of features that distances of pairs read at a time
MAPPED_ELEMENTS = 2**24  # numbers of features in a mapped file that are read at a time, 64 MiB


class SquaredDistances(Protocol):
    """A square matrix of squared distances between images, read in blocks or by pairs."""

    size: Size

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        """Of images from `first` on, by rows, to images start to stop.

        Then come rows of infinity up to a whole GROUP of all images.
        """

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        """The same, transposed."""

    def slack(self, start: Size, stop: Size, squared: tf.Tensor) -> tf.Tensor:
        """Rounding, (b, 1), of distances that `columns` gives as up to `squared` (b, 1)."""

    def pairs(self, first: tf.Tensor, second: tf.Tensor, dtype: str) -> tf.Tensor:
        """Between images `first` (m,) and `second` (m,), without the rounding of `columns`."""


class FeatureDistances:
    """`‖x − y‖²` between all rows of (n, d), expanded to `‖x‖² + ‖y‖² − 2x·y` and centred."""

    def __init__(self, features: tf.Tensor):
        self.features = features
        self.size, self.width = length(features, 0), length(features, 1)
        self.centred, self.norms = _centred(features)

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return _expanded(self._side(first, None), self._side(start, stop))

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return _expanded(self._side(start, stop), self._side(first, None))

    def _side(self, start: Size, stop: Size | None) -> Side:
        return self.centred[start:stop], self.norms[start:stop]

    def slack(self, start: Size, stop: Size, squared: tf.Tensor) -> tf.Tensor:
        # A sum of d products in float32 was off by less than a quarter of this in 10⁸ pairs.
        rounding = np.finfo(np.float32).eps * tf.sqrt(tf.cast(self.width, tf.float32))
        return rounding * (self.norms[start:stop, None] + squared)

    def pairs(self, first: tf.Tensor, second: tf.Tensor, dtype: str) -> tf.Tensor:
        def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
            x, y = (self._images(index[start:stop]) for index in (first, second))
            return (_squared(tf.cast(x, dtype), tf.cast(y, dtype)),)

        size = tf.maximum(1, PAIR_ELEMENTS // self.width)
        return in_blocks(work, length(first, 0), size, (tf.TensorSpec([None], dtype),))[0]

    def _images(self, index: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.features, index)


class KeptDistances(FeatureDistances):
    """Keeps those of the first queries to the gallery, which are read twice: KEPT_ELEMENTS."""

    def __init__(self, features: tf.Tensor, queries: Size):
        super().__init__(features)
        gallery = tf.maximum(self.size - queries, 1)
        self.queries = tf.convert_to_tensor(queries, tf.int32)
        self.known = tf.minimum(self.queries, KEPT_ELEMENTS // gallery)
        self.kept = super().columns(0, self.known, queries)

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        ends = (tf.convert_to_tensor(end, tf.int32) for end in (start, stop, first))
        return _partly_known(self.centred, self.norms, self.kept, self.known, self.queries, *ends)

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return tf.transpose(self.columns(start, stop, first))


class MappedDistances(FeatureDistances):
    """As `FeatureDistances`, of queries and a gallery in a mapped file that is not held.

    All images are read anew for each block of rows, MAPPED_ELEMENTS numbers at a time. Not for a
    tf.function.
    """

    def __init__(self, query: np.ndarray, gallery: np.ndarray):
        self.parts = query, gallery
        self.size, self.width = len(query) + len(gallery), gallery.shape[1]
        parts = (self._read(*block) for block in self._blocks(0))
        total = sum(part.sum(axis=0, dtype=np.float64) for part in parts)
        self.centre = (total / self.size).astype(np.float32)
        centred = (self._about_centre(*block) for block in self._blocks(0))
        norms = np.concatenate([np.einsum("nd,nd->n", part, part) for part in centred])
        missing = -self.size % GROUP
        self.norms = tf.constant(np.pad(norms, [0, missing], constant_values=np.inf))

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        start, stop, first = int(start), int(stop), int(first)
        images = tf.constant(-2 * self._about_centre(start, stop))
        rows = -(-self.size // GROUP) * GROUP - first
        squared = np.zeros((rows, stop - start), np.float32)
        for begin, end in self._blocks(first):
            block = self._about_centre(begin, end)
            squared[begin - first : end - first] = tf.matmul(block, images, transpose_b=True)
        squared += self.norms[first:, None]
        squared += self.norms[start:stop]
        return tf.convert_to_tensor(squared)

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return tf.transpose(self.columns(start, stop, first))

    def _blocks(self, first: int) -> Iterator[tuple[int, int]]:
        """Where blocks of the images from `first` on begin and end."""
        step = max(1, MAPPED_ELEMENTS // self.width)
        for start in range(first, self.size, step):
            yield start, min(start + step, self.size)

    def _about_centre(self, start: int, stop: int) -> np.ndarray:
        return self._read(start, stop) - self.centre

    def _read(self, start: int, stop: int) -> np.ndarray:
        query, gallery = self.parts
        q = len(query)
        both = query[start:stop], gallery[max(start - q, 0) : max(stop - q, 0)]
        return np.concatenate(both).astype(np.float32)

    def _images(self, index: tf.Tensor) -> tf.Tensor:
        query, gallery = self.parts
        at = index.numpy()
        later = at >= len(query)
        images = np.empty((len(at), self.width), np.float32)
        images[~later], images[later] = query[at[~later]], gallery[at[later] - len(query)]
        return tf.convert_to_tensor(images)


@tf.function(autograph=False, reduce_retracing=True)
def _centred(features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """About their mean, with their squared lengths; up to a whole GROUP with infinite ones.

    One function, and blocks, so that nothing of the size of all features is left behind.
    """
    size = length(features, 0)
    missing = -size % GROUP
    centred = tf.pad(features, [[0, missing], [0, 0]]) - tf.reduce_mean(features, axis=0)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        return (tf.reduce_sum(tf.square(centred[start:stop]), axis=1),)

    rows = tf.maximum(1, PAIR_ELEMENTS // length(features, 1))
    (norms,) = in_blocks(work, size, rows, (tf.TensorSpec([None], tf.float32),))
    return centred, tf.pad(norms, [[0, missing]], constant_values=np.inf)


@tf.function(autograph=False, reduce_retracing=True)
def _expanded(left: Side, right: Side) -> tf.Tensor:
    """One function, so that the sums need no memory of their own.

    TensorFlow multiplies up to five times as fast where `left` is the side of many images.
    """
    (x, x_norms), (y, y_norms) = left, right
    return -2 * tf.matmul(x, y, transpose_b=True) + x_norms[:, None] + y_norms


@tf.function(autograph=False, reduce_retracing=True)
def _partly_known(
    centred: tf.Tensor,
    norms: tf.Tensor,
    kept: tf.Tensor,
    known: tf.Tensor,
    queries: tf.Tensor,
    start: tf.Tensor,
    stop: tf.Tensor,
    first: tf.Tensor,
) -> tf.Tensor:
    """As `_expanded`, of which columns up to `known` and rows from `queries` on are kept."""
    end, after = tf.clip_by_value(known, start, stop), tf.maximum(first, queries)

    def between(rows: slice, columns: slice) -> tf.Tensor:
        return _expanded((centred[rows], norms[rows]), (centred[columns], norms[columns]))

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


class GivenDistances:
    """Squared distances that exist as blocks (q, q), (q, g) and (g, g)."""

    def __init__(self, qq: tf.Tensor, qg: tf.Tensor, gg: tf.Tensor):
        self.blocks = qq, qg, gg
        self.queries = length(qq, 0)
        self.size = self.queries + length(gg, 0)

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        qq, qg, gg = self.blocks
        q = self.queries
        of_queries = tf.concat([qq[start:stop], qg[start:stop]], axis=1)
        low, high = tf.maximum(start - q, 0), tf.maximum(stop - q, 0)
        of_gallery = tf.concat([tf.transpose(qg[:, low:high]), gg[low:high]], axis=1)
        both = tf.concat([of_queries, of_gallery], axis=0)
        whole = tf.pad(both, [[0, 0], [0, -self.size % GROUP]], constant_values=np.inf)
        return whole[:, first:]

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return tf.transpose(self.rows(start, stop, first))

    def slack(self, start: Size, stop: Size, squared: tf.Tensor) -> tf.Tensor:
        return -tf.ones_like(squared)  # given, so not rounded: equal ones are equal

    def pairs(self, first: tf.Tensor, second: tf.Tensor, dtype: str) -> tf.Tensor:
        q = self.queries
        swap = tf.logical_and(first >= q, second < q)
        first, second = tf.where(swap, second, first), tf.where(swap, first, second)
        inside = (second < q, tf.logical_and(first < q, second >= q), first >= q)
        # TensorFlow's gather would refuse an index outside, so others look at 0, 0.
        shifts = (0, 0), (0, q), (q, q)
        result = tf.zeros(tf.shape(first))
        for block, here, (row, column) in zip(self.blocks, inside, shifts, strict=True):
            at = tf.stack([first - row, second - column], axis=1)
            result += tf.where(here, tf.gather_nd(block, tf.where(here[:, None], at, 0)), 0)
        return tf.cast(result, dtype)


def length(x: tf.Tensor, axis: int) -> Size:
    """A number where it is known, else a tensor."""
    static = x.shape[axis]
    return tf.shape(x)[axis] if static is None else static
