"""Distances between points `(n, d) × (m, d) → (n, m)`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_reid.distances.rows import MASKED, PRECISE, at_least_float32, root, unit
from keras_reid.errors import Shown, invalid

Tensor = Any

# Losses with one of the distances or miners can then be saved.
registered = keras.saving.register_keras_serializable(package="keras_reid")

# The Gram expansion |a|² + |b|² − 2ab has an error of a few float32 roundings of |a|² + |b|²,
# independent of the distance. A pair at 1e-4 of the norm has an error of 7e-4 of the norm, and of
# 8e-3 in the TF32 products of TensorFlow on GPUs. Pairs farther than this fraction of the largest
# |a|² + |b|² keep five digits. For nearer pairs the product is repeated in double precision.
_NEAR = 0.02

# The error of a gradient is a rounding of the norm over the distance: five digits remain for much
# nearer pairs.
_TOUCHING = 2e-4


@registered
def squared_euclidean(x: Tensor, y: Tensor | None = None) -> Tensor:
    """`|x_i − y_j|²`, by the Gram expansion about the mean point.

    Args:
        x: points `(n, d)`.
        y: points `(m, d)`; None compares the rows of `x` with each other.

    Returns:
        `(n, m)` squared distances, in squared units of `x`, never below 0.

    Raises:
        InputError: if an argument is not a matrix or the widths differ.

    Example:
        >>> import numpy as np
        >>> print(np.array(squared_euclidean([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]])))
        [[25.  1.]]
    """
    if y is None:
        return _among(_points(x), rooted=False)
    return _squared_between(x, y)


@registered
def euclidean(x: Tensor, y: Tensor | None = None) -> Tensor:
    """`|x_i − y_j|`.

    Args:
        x: points `(n, d)`.
        y: points `(m, d)`; None compares the rows of `x` with each other.

    Returns:
        `(n, m)` distances, in units of `x`.

    Raises:
        InputError: if an argument is not a matrix or the widths differ.

    Example:
        >>> import numpy as np
        >>> print(np.array(euclidean([[0.0, 0.0]], [[3.0, 4.0], [0.0, 1.0]])))
        [[5. 1.]]
    """
    if y is None:
        return _among(_points(x), rooted=True)
    return root(_squared_between(x, y))


@registered
def cosine(x: Tensor, y: Tensor | None = None) -> Tensor:
    """`1 − cos(x_i, y_j)`.

    Computed as `|x̂_i − ŷ_j|² / 2`, which does not cancel for near pairs.

    Args:
        x: points `(n, d)`.
        y: points `(m, d)`; None compares the rows of `x` with each other.

    Returns:
        `(n, m)` in [0, 2], independent of the lengths of the points.

    Raises:
        InputError: if an argument is not a matrix or the widths differ.

    Example:
        >>> import numpy as np
        >>> print(np.array(cosine([[1.0, 0.0]], [[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])))
        [[0. 1. 2.]]
    """
    return squared_euclidean(unit(x), None if y is None else unit(y)) / 2


@registered
def precomputed(x: Tensor) -> Tensor:
    """`x_ij` itself: the argument already contains distances, learned ones for example.

    Args:
        x: distances `(n, n)`.

    Returns:
        `(n, n)` in float32 or float64.

    Raises:
        InputError: if `x` is not a square matrix.

    Example:
        >>> import numpy as np
        >>> print(np.array(precomputed([[0, 2], [2, 0]])))
        [[0. 2.]
         [2. 0.]]
    """
    x = _points(x)
    if None not in x.shape and x.shape[0] != x.shape[1]:
        fix = "Pass the distances of a batch to itself."
        raise invalid("x", "a square matrix", Shown(f"shape {tuple(x.shape)}"), fix)
    return x


def same_index(x: Tensor) -> Tensor:
    """`i == j`: the diagonal as a mask.

    Args:
        x: tensor `(n, …)`; n may be unknown.

    Returns:
        Booleans `(n, n)`.

    Example:
        >>> import numpy as np
        >>> print(np.array(same_index(np.zeros((2, 8)))))
        [[ True False]
         [False  True]]
    """
    index = ops.arange(ops.shape(x)[0], dtype="int32")  # the default follows floatx
    return index[:, None] == index[None, :]


def _among(x: Tensor, rooted: bool) -> Tensor:
    """`f(|x_i − x_j|²)` `(n, n)`, f the root or nothing.

    A loss `L` of these distances has the gradient `Σ_j (P_ij + P_ji) (x_i − x_j)`, where `P` is
    `∂L/∂f · 2f'`: one matrix product instead of the two that differentiating the Gram product
    takes, because both of its factors are the same points.
    """

    @ops.custom_gradient
    def distances(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        centered = x - ops.mean(x, axis=0)
        squared, nearness = _squared_among(centered)
        value = ops.sqrt(squared) if rooted else squared

        def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
            received = arguments[0] if upstream is None else upstream
            # Between coincident points both forms are 0.
            pull = (
                ops.divide_no_nan(received, value)
                if rooted
                else ops.where(value > 0, 2 * received, 0)
            )
            pull = pull + ops.transpose(pull)

            def sums(dtype: str) -> Tensor:
                p, a = ops.cast(pull, dtype), ops.cast(centered, dtype)
                total = ops.sum(p, axis=-1, keepdims=True) * a - p @ a
                return ops.cast(total, x.dtype)

            touching = nearness < _TOUCHING
            return ops.cond(touching, lambda: sums(PRECISE), lambda: sums(x.dtype))

        return value, gradient

    return distances(x)


def _squared_among(centered: Tensor) -> tuple[Tensor, Tensor]:
    """Return `|x_i − x_j|²`, and the smallest one as a fraction of the largest `2|x_i|²`."""
    diagonal = same_index(centered)
    length = ops.sum(centered * centered, axis=-1)
    scale = 2 * ops.max(length)
    squared = ops.where(diagonal, MASKED, expansion(centered, centered))
    nearness = ops.divide_no_nan(ops.min(squared), scale)

    def precisely() -> Tensor:
        a = ops.cast(centered, PRECISE)
        return ops.cast(squared_gram(a, a), centered.dtype)

    squared = ops.cond(nearness < _NEAR, precisely, lambda: squared)
    return ops.where(diagonal, ops.zeros_like(squared), squared), nearness


def _squared_between(x: Tensor, y: Tensor) -> Tensor:
    x, y = _points(x), _points(y)
    check_widths(x, y)
    a, b = ops.cast(x, PRECISE), ops.cast(y, PRECISE)
    # A distance does not change when both sets move, so the center needs no gradient.
    center = ops.stop_gradient((ops.mean(a, axis=0) + ops.mean(b, axis=0)) / 2)
    a, b = a - center, b - center
    return ops.cast(squared_gram(a, b), x.dtype)


def expansion(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
    """`|a_i|² + |b_j|² − 2 a_i·b_j`, or with weights w `Σ_c w_c (a_ic − b_jc)²`.

    Args:
        a: points `(n, d)`, centered for exact results.
        b: points `(m, d)`.
        weight: w, `(d,)`; None: 1.

    Returns:
        `(n, m)`, in squared units of the points; rounding errors may be below 0.

    Example:
        >>> import numpy as np
        >>> origin, points = np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])
        >>> print(np.array(expansion(origin, points, np.array([1.0, 2.0]))))
        [[41.]]
    """
    weighted = a if weight is None else weight * a
    other = b if weight is None else weight * b
    own, others = ops.sum(weighted * a, axis=-1), ops.sum(other * b, axis=-1)
    return own[:, None] + others[None, :] + (-2 * weighted) @ ops.transpose(b)


def squared_gram(a: Tensor, b: Tensor) -> Tensor:
    """`|a_i − b_j|²` `(n, m)` by the expansion; 0 for values below its rounding error."""
    squared = expansion(a, b)
    scale = ops.sum(a * a, axis=-1)[:, None] + ops.sum(b * b, axis=-1)[None, :]
    rounding = 32 * float(np.finfo(keras.backend.standardize_dtype(squared.dtype)).eps)
    # `<=` lets NaN through.
    return ops.where(squared <= rounding * scale, ops.zeros_like(squared), squared)


def _points(x: Tensor) -> Tensor:
    x = at_least_float32(x)
    if len(x.shape) != 2:
        fix = "Flatten or pool the features first."
        raise invalid("x", "a matrix (rows, features)", Shown(f"shape {tuple(x.shape)}"), fix)
    return x


def check_widths(x: Tensor, y: Tensor) -> None:
    """Raise `InputError` for points with different numbers of features."""
    if None not in (x.shape[-1], y.shape[-1]) and x.shape[-1] != y.shape[-1]:
        shapes = Shown(f"shapes {tuple(x.shape)} and {tuple(y.shape)}")
        fix = "Embed both with the same model."
        raise invalid("y", "points with the same number of features as `x`", shapes, fix)
