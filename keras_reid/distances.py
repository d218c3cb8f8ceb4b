"""Pairwise distances `(n, d) × (m, d) → (n, m)`: smaller is more alike. They know no labels.

Every function takes one or two sets of points. `distance(x, y)` compares every row of `x` with
every row of `y`; `distance(x)` compares the rows of `x` with each other and has an exactly zero
diagonal. Half precision and integers are computed and returned in float32, float64 in float64.

Coincident points have distance 0 and gradient 0; NaN stays NaN.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_reid.errors import InputError

Tensor = Any
Distance = Callable[..., Tensor]

# The Gram expansion |a|² + |b|² − 2ab cancels for near pairs: in float32 a pair at 1e-4 of the
# norm is wrong by 7e-4 of the norm, and by 8e-3 in the TF32 that TensorFlow multiplies with on
# GPUs. One product in double precision costs nothing beside a backbone and is exact to float32.
# Under JAX double precision is off by default, and some torch devices have none.
_PRODUCT = "float64" if keras.backend.backend() == "tensorflow" else "float32"
_ROUNDING = 32 * float(np.finfo(_PRODUCT).eps)


def squared_euclidean(x: Tensor, y: Tensor | None = None) -> Tensor:
    """`|x_i − y_j|²`, by the Gram expansion about the mean point.

    Args:
        x: points `(n, d)`.
        y: points `(m, d)`; None compares the rows of `x` with each other.

    Returns:
        `(n, m)` squared distances, in squared units of `x`, never below 0.

    Raises:
        InputError: if an argument is not a matrix or the widths differ.
    """
    x = _points(x)
    others = x if y is None else _points(y)
    _check_widths(x, others)
    a, b = ops.cast(x, _PRODUCT), ops.cast(others, _PRODUCT)
    # A distance does not change when both sets move, so the centre needs no gradient.
    centre = ops.stop_gradient((ops.mean(a, axis=0) + ops.mean(b, axis=0)) / 2)
    a, b = a - centre, b - centre
    scale = ops.sum(a * a, axis=-1)[:, None] + ops.sum(b * b, axis=-1)[None, :]
    squared = scale - 2 * ops.matmul(a, ops.transpose(b))
    # What is below the rounding of the expansion is coincident. `<=` lets NaN through.
    coincident = squared <= _ROUNDING * scale
    if y is None:
        coincident = ops.logical_or(coincident, same_index(x))
    return ops.cast(ops.where(coincident, ops.zeros_like(squared), squared), x.dtype)


def euclidean(x: Tensor, y: Tensor | None = None) -> Tensor:
    """`|x_i − y_j|`; arguments, shapes and errors as `squared_euclidean`."""
    squared = squared_euclidean(x, y)
    # The root has an infinite slope at 0, and a single `where` around it is NaN under XLA:
    # the inner one keeps 0 away from the root, the outer one puts it back.
    zero = squared <= 0
    root = ops.sqrt(ops.where(zero, ops.ones_like(squared), squared))
    return ops.where(zero, ops.zeros_like(root), root)


def cosine(x: Tensor, y: Tensor | None = None) -> Tensor:
    """`1 − cos(x_i, y_j)`, in [0, 2]; arguments, shapes and errors as `squared_euclidean`.

    Computed as `|x̂_i − ŷ_j|² / 2`, which does not cancel for near pairs.
    """
    return squared_euclidean(unit(x), None if y is None else unit(y)) / 2


def unit(x: Tensor) -> Tensor:
    """`x / |x|` along the last axis; a zero row stays zero and its gradient is finite."""
    x = _at_least_float32(x)
    squared = ops.sum(x * x, axis=-1, keepdims=True)
    return x / ops.sqrt(ops.where(squared <= 0, ops.ones_like(squared), squared))


def same_index(x: Tensor) -> Tensor:
    """`i == j`: the diagonal `(n, n)` as a mask, for `x` of `(n, …)`; n may be unknown."""
    index = ops.arange(ops.shape(x)[0])
    return index[:, None] == index[None, :]


DISTANCES: dict[str, Distance] = {
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
    "cosine": cosine,
}


def get(distance: str | Distance) -> Distance:
    """The distance of that name; a function is returned as it is.

    Raises:
        InputError: if the name is unknown.
    """
    if callable(distance):
        return distance
    if distance not in DISTANCES:
        raise InputError(
            f"A distance is a function or one of {', '.join(DISTANCES)}, but {distance!r} was "
            "given: choose one of these."
        )
    return DISTANCES[distance]


def _points(x: Tensor) -> Tensor:
    x = _at_least_float32(x)
    if len(x.shape) != 2:
        raise InputError(
            f"Points are a matrix (rows, features), but the shape is {tuple(x.shape)}: flatten or "
            "pool the features first."
        )
    return x


def _at_least_float32(x: Tensor) -> Tensor:
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def _check_widths(x: Tensor, y: Tensor) -> None:
    if None not in (x.shape[1], y.shape[1]) and x.shape[1] != y.shape[1]:
        raise InputError(
            "Points that are compared must have the same number of features, but the shapes are "
            f"{tuple(x.shape)} and {tuple(y.shape)}: embed both with the same model."
        )
