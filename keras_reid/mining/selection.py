"""Columns and weights of the distances in a mask, for each row of a matrix."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_reid.distances import MASKED

Tensor = Any


class Mined(NamedTuple):
    """Comparisons: d⁺, d⁻ and the mask of existing comparisons, each `(n, …)`, anchors first.

    Attributes:
        positive: distances d⁺ to images of the identity of the anchor.
        negative: distances d⁻ to images of other identities.
        valid: mask, True where both images exist.

    Example:
        >>> mined = Mined(positive=3.0, negative=2.0, valid=True)
        >>> mined.positive - mined.negative  # a triplet loss adds the margin
        1.0
    """

    positive: Tensor
    negative: Tensor
    valid: Tensor


# Entry (rows[i], columns[i]) for each i; None: every row in order.
Reader = Callable[[Tensor | None, Tensor], Tensor]
Miner = Callable[..., Mined]


def entries(distances: Tensor) -> Reader:
    """Return the reader `distances[rows, columns]`.

    Args:
        distances: matrix `(n, m)`.

    Returns:
        Function of `rows`, `(n,)` or None for every row in order, and `columns`, `(n,)` or
        `(n, k)`. Its result has the shape of `columns`.

    Example:
        >>> import numpy as np
        >>> read = entries(np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> print(np.array(read(None, np.array([1, 0]))))
        [2. 3.]
    """

    def read(rows: Tensor | None, columns: Tensor) -> Tensor:
        if rows is None:
            rows = ops.arange(ops.shape(distances)[0], dtype=columns.dtype)
        if len(columns.shape) == 2:
            rows = rows[:, None]
        width = ops.cast(ops.shape(distances)[1], columns.dtype)
        return ops.take(ops.reshape(distances, (-1,)), rows * width + columns)

    return read


def farthest(distances: Tensor, mask: Tensor) -> Tensor:
    """Return the column of the largest distance in the mask, for each row; the first of equals.

    Args:
        distances: matrix `(n, m)`.
        mask: booleans `(n, m)`.

    Returns:
        Columns `(n,)`, int32.

    Example:
        >>> import numpy as np
        >>> row, mask = np.array([[1.0, 3.0, 9.0]]), np.array([[True, True, False]])
        >>> print(np.array(farthest(row, mask)))
        [1]
    """
    distances = ops.where(mask, distances, -MASKED)
    return first(distances >= ops.max(distances, axis=-1, keepdims=True))


def nearest(distances: Tensor, mask: Tensor) -> Tensor:
    """Return the column of the smallest distance in the mask, for each row; the first of equals.

    Args:
        distances: matrix `(n, m)`.
        mask: booleans `(n, m)`.

    Returns:
        Columns `(n,)`, int32.

    Example:
        >>> import numpy as np
        >>> row, mask = np.array([[1.0, 3.0, 9.0]]), np.array([[False, True, True]])
        >>> print(np.array(nearest(row, mask)))
        [1]
    """
    distances = ops.where(mask, distances, MASKED)
    return first(distances <= ops.min(distances, axis=-1, keepdims=True))


def nearest_pair(distances: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column of the smallest distance in the mask.

    Args:
        distances: matrix `(n, m)`.
        mask: booleans `(n, m)`.

    Returns:
        Row and column, each `(1,)`, int32.

    Example:
        >>> import numpy as np
        >>> row, column = nearest_pair(np.array([[9.0, 4.0], [1.0, 7.0]]), np.ones((2, 2), bool))
        >>> int(row[0]), int(column[0])
        (1, 0)
    """
    distances = ops.where(mask, distances, MASKED)
    of_rows = ops.min(distances, axis=-1)
    columns = first(distances <= of_rows[:, None])
    row = first((of_rows <= ops.min(of_rows))[None, :])
    return row, ops.take(columns, row)


def first(mask: Tensor) -> Tensor:
    """Return the first True column of each row; without one, as after NaN, the last column."""
    # On a CPU, an argmin of the distances takes 1.5 times as long as a minimum and this.
    last = ops.shape(mask)[-1] - 1
    return ops.min(ops.where(mask, ops.arange(last + 1, dtype="int32")[None, :], last), axis=-1)


def softest(distances: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the softmax of `distances / temperature` in the mask, and 0 elsewhere.

    Args:
        distances: matrix `(n, m)`.
        mask: booleans `(n, m)`.
        temperature: temperature in units of the distances.

    Returns:
        Weights `(n, m)`. The sum of a row is 1, or 0 if the mask is empty in that row.

    Example:
        >>> import numpy as np
        >>> row, mask = np.log([[1.0, 3.0, 9.0]]), np.array([[True, True, False]])
        >>> print(np.round(softest(row, mask), 2))
        [[0.25 0.75 0.  ]]
    """
    # Subtract before dividing, from one `where`: XLA fuses a product and a subtraction and rounds
    # differently. Exponents of large distances could then be far above 0.
    chosen = ops.where(mask, distances, -MASKED)
    largest = ops.stop_gradient(ops.max(chosen, axis=-1, keepdims=True))
    weights = ops.where(mask, ops.exp((chosen - largest) / temperature), 0)
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total <= 0, ops.ones_like(total), total)


def exists(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mask `(n,)` of the rows with a positive and a negative.

    Args:
        positive: mask `(n, m)` of the pairs of one identity.
        negative: mask `(n, m)` of the pairs of different identities.

    Example:
        >>> import numpy as np
        >>> positive = np.array([[True, False], [False, False]])
        >>> print(np.array(exists(positive, ~positive)))
        [ True False]
    """
    return ops.logical_and(ops.any(positive, axis=-1), ops.any(negative, axis=-1))
