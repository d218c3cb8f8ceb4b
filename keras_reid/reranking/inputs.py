"""Forms of a re-ranker: by rows, and as a matrix, also inside a tf.function."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.nearest import graph
from keras_reid.nearest.arrays import Rows, checked_features
from keras_reid.nearest.graph import Size, length

Matrix = Any  # an array, or a tensor inside a tf.function


def checked(query: Any, gallery: Any) -> tuple[Matrix, Matrix]:
    """Return features (q, d) and (g, d) in float32, checked for finite values outside of graphs.

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
            "Query and gallery features must have the same width and at least one row, got "
            f"{tuple(query.shape)} and {tuple(gallery.shape)}. Embed both with the same model."
        )
    return query, gallery


def joined(query: Any, gallery: Any) -> tuple[tf.Tensor, Size]:
    """Return the features of query and gallery as one float32 tensor (q + g, d), and q."""
    query, gallery = checked(query, gallery)
    return tf.concat([query, gallery], axis=0), length(query, 0)


def reranker(make: Callable[..., Rows]) -> Any:
    """Decorator: return the re-ranker as a function `(query, gallery, **options)` of the matrix.

    Its attribute `rows` is the decorated function `(query, gallery, progress=None, **options)`,
    which computes rows on reading. The matrix is a NumPy array, or a tensor inside a
    tf.function. There, invalid features cannot raise: rows that are not finite are infinitely far
    from all other rows, and do not change the distances between other rows.
    """

    @wraps(make)
    def function(query: Any, gallery: Any, *options: Any, **named: Any) -> Matrix:
        if tf.executing_eagerly():
            return make(query, gallery, None, *options, **named).matrix()
        return _finite_matrix(partial(make, **named), query, gallery, *options)

    signature = inspect.signature(make)
    shown = [p for p in signature.parameters.values() if p.name != "progress"]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=shown, return_annotation=np.ndarray
    )
    function.rows = make  # type: ignore[attr-defined]
    return function


def _finite_matrix(make: Callable[..., Rows], query: Any, gallery: Any, *options: Any) -> tf.Tensor:
    """Return the matrix of the finite rows, with infinity for the other rows."""
    query, gallery = checked(query, gallery)
    good = [tf.reduce_all(tf.math.is_finite(part), axis=1) for part in (query, gallery)]

    def compute() -> tf.Tensor:
        kept = tf.boolean_mask(query, good[0]), tf.boolean_mask(gallery, good[1])
        return graph.matrix(make(*kept, None, *options))

    return _spread(compute, *good)


def _spread(
    compute: Callable[[], tf.Tensor], good_query: tf.Tensor, good_gallery: tf.Tensor
) -> tf.Tensor:
    """Return the matrix of the good rows and columns, with infinity elsewhere."""
    some = tf.reduce_any(good_query) & tf.reduce_any(good_gallery)
    shape = good_query.shape[0], good_gallery.shape[0]
    inner = tf.cond(some, compute, lambda: tf.zeros([0, 0]))

    def spread() -> tf.Tensor:
        whole = inner
        for axis, good in enumerate((good_query, good_gallery)):
            # Rows and columns that are not good read one of infinity after the last.
            place = tf.where(good, tf.cumsum(tf.cast(good, tf.int32)) - 1, tf.shape(whole)[axis])
            end = [[0, int(axis == 0)], [0, int(axis == 1)]]
            place = tf.minimum(place, tf.shape(whole)[axis])
            whole = tf.gather(tf.pad(whole, end, constant_values=np.inf), place, axis=axis)
        return whole

    complete = tf.reduce_all(good_query) & tf.reduce_all(good_gallery)
    return tf.ensure_shape(tf.cond(complete & some, lambda: inner, spread), shape)
