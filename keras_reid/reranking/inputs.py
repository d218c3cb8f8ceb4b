"""What re-rankers accept: features, distances and numbers, or one clear sentence."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError


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


def at_least(least: int, **numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int | np.integer) or number < least:
            raise InputError(
                f"{name} is a whole number of at least {least}, received {number!r}: pass a larger "
                "one"
            )


def share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{name} is a share from 0 to 1, received {value}: pass such a number")


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


def _finite(tensor: tf.Tensor, what: str) -> tf.Tensor:
    """Inside a tf.function the shapes alone can be looked at."""
    if tf.executing_eagerly():
        bad = tf.where(tf.reduce_any(~tf.math.is_finite(tensor), axis=1))[:, 0].numpy()
        if len(bad):
            raise InputError(
                f"{what} must be finite in float32, received NaN or Inf in {len(bad)} rows, first "
                f"row {bad[0]}: drop those images or mend the model"
            )
    return tensor
