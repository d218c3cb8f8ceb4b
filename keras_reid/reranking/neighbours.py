"""The k nearest of all images to each, exactly, in blocks: the whole matrix never exists."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from keras_reid.reranking.blocks import Progress, in_blocks
from keras_reid.reranking.topk import smallest

Size = Any  # int, or a scalar tensor inside a tf.function

# Elements of a block of squared distances, 128 MiB. It has at least LEAST rows: products of fewer
# are slow, because each product arranges all features anew.
BLOCK_ELEMENTS = 2**25
LEAST = 512
GROUP = 16  # columns of which only the nearest is looked at first
SPARE, MORE = 8, 64  # candidates beyond k, and beyond k where those cannot be told apart
PAIR_ELEMENTS = 2**22  # numbers of features that distances of pairs read at a time


class SquaredDistances(Protocol):
    """A square matrix of squared distances between images, read by rows or by pairs."""

    size: Size

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        """Of images start to stop to those from `first` on.

        Then come columns of infinity up to a whole GROUP of all images.
        """

    def slack(self, start: Size, stop: Size, squared: tf.Tensor) -> tf.Tensor:
        """Rounding, (b, 1), of distances that `rows` gives as up to `squared` (b, 1)."""

    def pairs(self, first: tf.Tensor, second: tf.Tensor, dtype: str) -> tf.Tensor:
        """Between images `first` (m,) and `second` (m,), without the rounding of `rows`."""


class Neighbours(NamedTuple):
    """The k nearest images to each of n, itself first, equally near ones by index.

    index: int32 (n, k). squared: float32 (n, k), their squared distances. largest: float32 (n,),
    the largest squared distance of each row.
    """

    index: tf.Tensor
    squared: tf.Tensor
    largest: tf.Tensor


class FeatureDistances:
    """`‖x − y‖²` between all rows of (n, d), expanded to `‖x‖² + ‖y‖² − 2x·y` and centred."""

    def __init__(self, features: tf.Tensor):
        self.features = features
        self.size, self.width = length(features, 0), length(features, 1)
        centred = features - tf.reduce_mean(features, axis=0)
        missing = -self.size % GROUP
        self.centred = tf.pad(centred, [[0, missing], [0, 0]])
        norms = tf.reduce_sum(centred * centred, axis=1)
        self.norms = tf.pad(norms, [[0, missing]], constant_values=np.inf)

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        ends = (tf.convert_to_tensor(end, tf.int32) for end in (start, stop, first))
        return _expanded(self.centred, self.norms, *ends)

    def slack(self, start: Size, stop: Size, squared: tf.Tensor) -> tf.Tensor:
        # A sum of d products in float32 was off by less than a quarter of this in 10⁸ pairs.
        rounding = np.finfo(np.float32).eps * tf.sqrt(tf.cast(self.width, tf.float32))
        return rounding * (self.norms[start:stop, None] + squared)

    def pairs(self, first: tf.Tensor, second: tf.Tensor, dtype: str) -> tf.Tensor:
        def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
            x, y = (tf.gather(self.features, index[start:stop]) for index in (first, second))
            return (_squared(tf.cast(x, dtype), tf.cast(y, dtype)),)

        size = tf.maximum(1, PAIR_ELEMENTS // self.width)
        return in_blocks(work, length(first, 0), size, (tf.TensorSpec([None], dtype),))[0]


@tf.function(autograph=False, reduce_retracing=True)
def _expanded(
    centred: tf.Tensor, norms: tf.Tensor, start: Size, stop: Size, first: Size
) -> tf.Tensor:
    """One function, so that the sums need no memory of their own."""
    products = tf.matmul(-2 * centred[start:stop], centred[first:], transpose_b=True)
    return products + norms[first:] + norms[start:stop, None]


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


def nearest(
    source: SquaredDistances,
    k: int,
    progress: Progress | None = None,
    cuts: tuple[int, ...] | None = None,
) -> Neighbours:
    """The `min(k, n)` nearest images to each, among all.

    Candidates come from blocks of `source.rows`; where those leave open which is nearer, the
    distances of the candidates decide, computed in float64. Only if more than MORE images are
    within the rounding of the k-th does their order in `rows` decide.

    `cuts` are the numbers of neighbours, k at most, of which only the sets matter: who is nearer
    is then decided so where they end alone. `squared` is as `rows` has it, 0 for the image itself.
    """
    k = tf.minimum(k, source.size) if not isinstance(source.size, int) else min(k, source.size)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        squared = source.rows(start, stop)
        return *_nearest_in_block(source, start, stop, squared, k, cuts), _largest(squared)

    size = tf.maximum(LEAST, BLOCK_ELEMENTS // source.size)
    shapes = ([None, None], tf.int32), ([None, None], tf.float32), ([None], tf.float32)
    like = tuple(tf.TensorSpec(*shape) for shape in shapes)
    return Neighbours(*in_blocks(work, source.size, size, like, progress))


def _nearest_in_block(
    source: SquaredDistances,
    start: Size,
    stop: Size,
    squared: tf.Tensor,
    k: Size,
    cuts: tuple[int, ...] | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    itself = tf.range(start, stop)[:, None]
    wanted = tf.minimum(k + SPARE, source.size)
    index, values = _smallest(squared, wanted)
    slack = source.slack(start, stop, values[:, k - 1 : k])
    close = values[:, -1:] - values[:, k - 1 : k] <= slack
    wider = tf.minimum(k + MORE, source.size)
    index, values = tf.cond(
        tf.logical_and(wider > wanted, tf.reduce_any(close)),
        lambda: _smallest(squared, wider),
        lambda: (index, values),
    )
    index, values = _itself_first(index, values, itself)
    rows = _unsure(values, slack, cuts)
    order = _by_distance(source, tf.gather(index, rows), tf.gather(itself, rows))
    index, values = (
        tf.tensor_scatter_nd_update(
            both, rows[:, None], tf.gather(tf.gather(both, rows), order, batch_dims=1)
        )
        for both in (index, values)
    )
    return index[:, :k], tf.maximum(values[:, :k], 0)


def _unsure(values: tf.Tensor, slack: tf.Tensor, cuts: tuple[int, ...] | None) -> tf.Tensor:
    """Rows (f,) whose order is open: at any place, or at the end of the first `cut` candidates."""
    close = values[:, 2:] - values[:, 1:-1] <= slack  # column c: of c + 1 and c + 2; 0 is itself
    if cuts is not None:
        last = tf.shape(close)[1] - 1
        ends = tf.stack([tf.clip_by_value(cut - 2, 0, last) for cut in cuts])
        close = tf.cond(last < 0, lambda: close, lambda: tf.gather(close, ends, axis=1))
    return tf.cast(tf.where(tf.reduce_any(close, axis=1))[:, 0], tf.int32)


def _smallest(rows: tf.Tensor, k: Size) -> tuple[tf.Tensor, tf.Tensor]:
    """Index and value of the k smallest in each row, ascending, equal ones by index."""
    values, index = smallest(rows, k, GROUP)
    return index, values


def _itself_first(
    index: tf.Tensor, values: tf.Tensor, itself: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Candidates (b, c) with the row's own image at the front, in place of the last if need be."""
    own = index == itself
    last = tf.range(tf.shape(index)[1]) == tf.shape(index)[1] - 1
    own = tf.logical_or(own, tf.logical_and(last, ~tf.reduce_any(own, axis=1, keepdims=True)))
    index, values = tf.where(own, itself, index), tf.where(own, -1.0, values)
    order = tf.argsort(values, axis=1, stable=True)
    return tf.gather(index, order, batch_dims=1), tf.gather(values, order, batch_dims=1)


def _by_distance(source: SquaredDistances, index: tf.Tensor, itself: tf.Tensor) -> tf.Tensor:
    """The order of candidates (f, c) of images (f, 1): themselves, then by distance, then index."""
    by_index = tf.argsort(index, axis=1)
    index = tf.gather(index, by_index, batch_dims=1)
    pair = tf.broadcast_to(itself, tf.shape(index))
    exact = source.pairs(tf.reshape(pair, [-1]), tf.reshape(index, [-1]), "float64")
    exact = tf.reshape(exact, tf.shape(index))
    exact = tf.where(index == itself, -tf.ones_like(exact), exact)
    return tf.gather(by_index, tf.argsort(exact, axis=1, stable=True), batch_dims=1)


def _largest(rows: tf.Tensor) -> tf.Tensor:
    """Of each row, without the infinite columns at its end."""
    groups = tf.reshape(rows, (tf.shape(rows)[0], -1, GROUP))
    maxima = tf.reduce_max(groups, axis=2)
    last = groups[:, -1]
    last = tf.reduce_max(tf.where(tf.math.is_inf(last), 0.0, last), axis=1, keepdims=True)
    return tf.reduce_max(tf.concat([maxima[:, :-1], last], axis=1), axis=1)


def length(x: tf.Tensor, axis: int) -> Size:
    """A number where it is known, else a tensor."""
    static = x.shape[axis]
    return tf.shape(x)[axis] if static is None else static
