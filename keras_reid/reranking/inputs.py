"""What re-rankers accept: features, distances and numbers, or one clear sentence."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError

BLOCK_ELEMENTS = 2**24  # of a mapped file that are checked at a time, 64 MiB


def joined(query: Any, gallery: Any) -> tuple[tf.Tensor, int | tf.Tensor]:
    """Features of query and gallery as one float32 tensor (q + g, d), and q."""
    query, gallery = (
        features(part, f"{name} features")
        for part, name in ((query, "query"), (gallery, "gallery"))
    )
    if query.shape[1] != gallery.shape[1]:
        raise InputError(
            "query and gallery features must have the same width, received "
            f"{query.shape[1]} and {gallery.shape[1]}: embed both with the same model"
        )
    count = tf.shape(query)[0] if query.shape[0] is None else query.shape[0]
    return tf.concat([query, gallery], axis=0), count


def mapped(query: Any, gallery: Any) -> bool:
    """Whether the gallery is features in a mapped file, which are looked at, but not held.

    Raises:
        InputError: as `joined`.
    """
    if not isinstance(gallery, np.memmap) or gallery.ndim != 2:
        return False
    joined(query, gallery[:1])
    step = max(1, BLOCK_ELEMENTS // gallery.shape[1])
    for start in range(0, len(gallery), step):
        what = "gallery features"
        _finite(_float32(gallery[start : start + step], what), what, start)
    return True


def features(values: Any, what: str = "features") -> tf.Tensor:
    """(n, d) in float32, finite, with at least one row."""
    return _finite(_float32(values, what), what)


def distances(
    values: Any, rows: int | None, columns: int | None, what: str, squared: bool
) -> tf.Tensor:
    """A matrix of finite, non-negative distances of that shape, squared unless they are."""
    matrix = _finite(_float32(values, what), what)
    expected = (rows, columns)
    if any(None not in (x, y) and x != y for x, y in zip(matrix.shape, expected, strict=True)):
        raise InputError(
            f"distances must be (q, q), (q, g) and (g, g) of one q and g, but {what} is "
            f"{tuple(matrix.shape)} where {expected} was expected: pass all three of one set"
        )
    if tf.executing_eagerly() and tf.reduce_min(matrix) < 0:
        raise InputError(
            f"distances are not negative, but {what} holds {tf.reduce_min(matrix):.3g}: turn "
            "similarities into distances first"
        )
    return matrix if squared else matrix * matrix


def of_finite_rows(
    query: Any, gallery: Any, rerank: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """`rerank(query, gallery)` inside a tf.function, where features cannot be refused.

    Rows that are not finite take no part, so that all others have the distances that they have
    without them; they are infinitely far from everybody.
    """
    query, gallery = (
        _float32(part, f"{n} features") for part, n in ((query, "query"), (gallery, "gallery"))
    )
    good = [tf.reduce_all(tf.math.is_finite(part), axis=1) for part in (query, gallery)]
    return _spread(
        lambda: rerank(tf.boolean_mask(query, good[0]), tf.boolean_mask(gallery, good[1])), *good
    )


def of_finite_images(
    qq: Any, qg: Any, gg: Any, rerank: Callable[..., tf.Tensor], squared: bool
) -> tf.Tensor:
    """`rerank(qq, qg, gg)` of distances inside a tf.function.

    An image without a finite distance to any other takes no part. Where single distances of the
    others are not finite they count as the largest one, and are infinite in the result.
    """
    names = {"qq": qq, "qg": qg, "gg": gg}
    qq, qg, gg = (distances(d, None, None, name, squared) for name, d in names.items())
    known = [tf.math.is_finite(d) for d in (qq, qg, gg)]
    of_itself = [tf.eye(tf.shape(d)[0], dtype=tf.bool) for d in (qq, gg)]
    met = [tf.reduce_any(k & ~own, axis=1) for k, own in zip(known[::2], of_itself, strict=True)]
    good = met[0] | tf.reduce_any(known[1], axis=1), met[1] | tf.reduce_any(known[1], axis=0)

    def chosen() -> tf.Tensor:
        sides = ((0, 0), (0, 1), (1, 1))
        parts = []
        for d, k, (a, b) in zip((qq, qg, gg), known, sides, strict=True):
            filled = tf.where(k, d, tf.reduce_max(tf.where(k, d, 0.0)))
            parts.append(tf.boolean_mask(tf.boolean_mask(filled, good[a]), good[b], axis=1))
        return rerank(*parts)

    return tf.where(known[1], _spread(chosen, *good), np.inf)


def _spread(
    compute: Callable[[], tf.Tensor], good_query: tf.Tensor, good_gallery: tf.Tensor
) -> tf.Tensor:
    """What is computed of the good rows and columns, in a matrix of all, infinite elsewhere."""
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


def _float32(values: Any, what: str) -> tf.Tensor:
    try:
        values = values if tf.is_tensor(values) else np.asarray(values)
    except ValueError:  # ragged
        values = np.empty(0, object)
    real = np.dtype(_dtype(values)).kind in "fiu"
    tensor = tf.cast(values, tf.float32) if real else None
    if tensor is None or tensor.shape.rank != 2 or 0 in tensor.shape:
        raise InputError(
            f"{what} are one 2-D array of real numbers with a row for each image, at least one, "
            f"received {tuple(values.shape)} of {np.dtype(_dtype(values))}: pass such an array"
        )
    return tensor


def _dtype(values: Any) -> Any:
    return values.dtype.as_numpy_dtype if tf.is_tensor(values) else values.dtype


def _finite(tensor: tf.Tensor, what: str, first: int = 0) -> tf.Tensor:
    """Rows from `first` on; inside a tf.function the shapes alone can be looked at."""
    if tf.executing_eagerly():
        bad = tf.where(tf.reduce_any(~tf.math.is_finite(tensor), axis=1))[:, 0].numpy()
        if len(bad):
            raise InputError(
                f"{what} must be finite in float32, received NaN or Inf in {len(bad)} rows, first "
                f"row {first + bad[0]}: drop those images or mend the model"
            )
    return tensor
