"""Inputs of re-rankers: checked outside of a tf.function, and made finite inside."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.nearest import graph
from keras_reid.nearest.arrays import Rows, checked_features
from keras_reid.nearest.graph import Size, length

Matrix = Any  # an array, or a tensor inside a tf.function


def checked(query: Any, gallery: Any) -> tuple[Matrix, Matrix]:
    """Features (q, d) and (g, d) in float32, finite outside of a tf.function.

    A gallery in a mapped file stays in the file.

    Raises:
        InputError: other shapes or types, no rows, or values that are not finite.
    """
    if tf.executing_eagerly():
        query = checked_features(query, 2, "query")
        gallery = checked_features(gallery, 2, "gallery")
    else:
        query, gallery = tf.cast(query, tf.float32), tf.cast(gallery, tf.float32)
    if query.shape[1] != gallery.shape[1] or 0 in (*query.shape, *gallery.shape):
        raise InputError(
            "query and gallery features must have the same width and at least one row, got "
            f"{tuple(query.shape)} and {tuple(gallery.shape)}. Embed both with the same model."
        )
    return query, gallery


def joined(query: Any, gallery: Any) -> tuple[tf.Tensor, Size]:
    """Features of query and gallery as one float32 tensor (q + g, d), and q."""
    query, gallery = checked(query, gallery)
    return tf.concat([query, gallery], axis=0), length(query, 0)


def whole(make: Callable[..., Rows], query: Any, gallery: Any, *options: Any) -> Matrix:
    """The matrix (q, g) of `make(query, gallery, None, *options)`, also inside a tf.function.

    There, features cannot be refused: rows that are not finite take no part, so that all others
    have the distances that they have without them, and are infinitely far from all.
    """
    if tf.executing_eagerly():
        return make(query, gallery, None, *options).matrix()
    query, gallery = checked(query, gallery)
    good = [tf.reduce_all(tf.math.is_finite(part), axis=1) for part in (query, gallery)]

    def compute() -> tf.Tensor:
        kept = tf.boolean_mask(query, good[0]), tf.boolean_mask(gallery, good[1])
        return graph.matrix(make(*kept, None, *options))

    return _spread(compute, *good)


def _spread(
    compute: Callable[[], tf.Tensor], good_query: tf.Tensor, good_gallery: tf.Tensor
) -> tf.Tensor:
    """Compute the matrix of the good rows and columns, and fill the others with infinity."""
    some = tf.reduce_any(good_query) & tf.reduce_any(good_gallery)
    shape = good_query.shape[0], good_gallery.shape[0]
    inner = tf.cond(some, compute, lambda: tf.zeros([0, 0]))

    def spread() -> tf.Tensor:
        whole = inner
        for axis, good in enumerate((good_query, good_gallery)):
            # One row or column of infinity behind the last, for all that are not good.
            place = tf.where(good, tf.cumsum(tf.cast(good, tf.int32)) - 1, tf.shape(whole)[axis])
            end = [[0, int(axis == 0)], [0, int(axis == 1)]]
            place = tf.minimum(place, tf.shape(whole)[axis])
            whole = tf.gather(tf.pad(whole, end, constant_values=np.inf), place, axis=axis)
        return whole

    everybody = tf.reduce_all(good_query) & tf.reduce_all(good_gallery)
    return tf.ensure_shape(tf.cond(everybody & some, lambda: inner, spread), shape)
