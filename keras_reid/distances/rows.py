"""Points row by row: precision, length, roots."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

# Under JAX double precision is off by default: there, near pairs are only as exact as float32 is.
# Matrix products are written with `@` below, since `ops.matmul` multiplies float64 in float32
# under PyTorch.
PRECISE = "float32" if keras.backend.backend() == "jax" else "float64"

# Larger than the squared distances of float32 points; finite, because infinity times a weight of 0
# is NaN.
MASKED = 1e38


def unit(x: Tensor) -> Tensor:
    """`x / |x|` along the last axis; a zero row stays zero and its gradient is finite.

    Args:
        x: points `(…, d)`.

    Returns:
        `(…, d)` of length 1 or 0, in float32 or float64.

    Example:
        >>> import numpy as np
        >>> print(np.array(unit([[3.0, 4.0], [0.0, 0.0]])))
        [[0.6 0.8]
         [0.  0. ]]
    """
    x = at_least_float32(x)

    @ops.custom_gradient
    def unit(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        squared = ops.sum(x * x, axis=-1, keepdims=True)
        length = ops.sqrt(ops.where(squared <= 0, ops.ones_like(squared), squared))
        direction = x / length

        def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
            received = arguments[0] if upstream is None else upstream
            along = ops.sum(received * direction, axis=-1, keepdims=True)
            return (received - along * direction) / length

        return direction, gradient

    return unit(x)


def squared_paired(x: Tensor, y: Tensor) -> Tensor:
    """`|x − y|²` along the last axis."""
    difference = at_least_float32(x) - at_least_float32(y)
    return ops.sum(difference * difference, axis=-1)


def root(squared: Tensor) -> Tensor:
    """`√x`, with the gradient 0 at 0."""
    # The root has an infinite gradient at 0, and a single `where` around it is NaN under XLA:
    # the inner one keeps 0 away from the root, the outer one puts it back.
    zero = squared <= 0
    root = ops.sqrt(ops.where(zero, ops.ones_like(squared), squared))
    return ops.where(zero, ops.zeros_like(root), root)


def at_least_float32(x: Tensor) -> Tensor:
    """Return half precision and integers in float32.

    Gradients are clipped to the largest float16, 65,504: `x / |x|` of a row of length 1e-6 has a
    slope of a million.
    """
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    if dtype == "float16":
        return _from_half(x)
    return x if dtype == "float64" else ops.cast(x, "float32")


@ops.custom_gradient
def _from_half(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
    largest = float(np.finfo(np.float16).max)

    def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
        received = arguments[0] if upstream is None else upstream
        return ops.cast(ops.clip(received, -largest, largest), "float16")

    return ops.cast(x, "float32"), gradient
