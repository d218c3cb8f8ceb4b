"""Squared distances that re-ranking reads in blocks, and those of matrices that exist."""

from typing import Protocol

import numpy as np
import tensorflow as tf

from keras_reid.nearest.graph import GROUP, Size, length


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
