"""Semi-hard mining: the nearest negative beyond each positive."""

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_reid.distances import MASKED
from keras_reid.distances.points import registered
from keras_reid.mining.selection import Mined, Reader, entries, first

Tensor = Any


@registered
def semi_hard(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """Return for each positive pair the nearest negative beyond it, or else the farthest negative.

    FaceNet (Schroff et al., CVPR 2015, arXiv:1503.03832). Time O(k · n²) for at most k positives
    of an anchor, memory O(n²).

    Args:
        distances: matrix `(n, m)`.
        positive: mask `(n, m)` of the pairs of one identity.
        negative: mask `(n, m)` of the pairs of different identities.
        read: not used, because several entries of a row have a gradient.

    Returns:
        Comparisons `(n, m)`, one for each positive pair.

    Example:
        >>> import numpy as np
        >>> row = np.array([[1.0, 3.0, 2.0, 6.0]])  # two positives, two negatives.
        >>> positive = np.array([[True, True, False, False]])
        >>> mined = semi_hard(row, positive, ~positive)
        >>> print(np.array(mined.negative))  # 2 is beyond 1, and 6 beyond 3
        [[2. 6. 0. 0.]]
    """
    return Mined(
        distances,
        _beyond(distances, positive, negative),
        ops.logical_and(positive, ops.any(negative, axis=-1, keepdims=True)),
    )


@registered
def semi_hard_of_every_anchor(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """Return `semi_hard` of every positive, as in TensorFlow Addons: d⁻ is 0 without negatives.

    Args:
        distances: matrix `(n, m)`.
        positive: mask `(n, m)` of the pairs of one identity.
        negative: mask `(n, m)` of the pairs of different identities.
        read: not used, as in `semi_hard`.

    Returns:
        Comparisons `(n, m)`, one for each positive pair.

    Example:
        >>> import numpy as np
        >>> row, positive = np.array([[1.0, 3.0]]), np.array([[True, True]])
        >>> mined = semi_hard_of_every_anchor(row, positive, ~positive)
        >>> print(np.array(mined.negative), np.array(mined.valid))
        [[0. 0.]] [[ True  True]]
    """
    mined = semi_hard(distances, positive, negative, read)
    semi_hard_negative = ops.where(ops.any(negative, axis=-1, keepdims=True), mined.negative, 0)
    return Mined(mined.positive, semi_hard_negative, positive)


def _beyond(distances: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """d⁻ `(n, m)` of `semi_hard` where `positive`, 0 elsewhere.

    Its gradient goes through the few positives of each anchor again. The gradient of reading an
    entry for each pair would add up n m numbers.
    """
    index = ops.arange(ops.shape(distances)[1], dtype="int32")[None, :]

    @ops.custom_gradient
    def beyond(distances: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        negatives = ops.where(negative, distances, -MASKED)
        farthest = ops.max(negatives, axis=-1, keepdims=True)

        def nearest_beyond(column: Tensor) -> Tensor:
            farther = ops.where(negatives > _at(distances, column), negatives, MASKED)
            smallest = ops.min(farther, axis=-1, keepdims=True)
            return ops.where(index == column, ops.where(smallest < MASKED, smallest, farthest), 0)

        smallest_beyond = _over_positives(nearest_beyond, positive, distances.dtype)

        def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
            received = arguments[0] if upstream is None else upstream

            def back(column: Tensor) -> Tensor:
                chosen = first(negatives == _at(smallest_beyond, column))[:, None]
                own = ops.logical_and(index == chosen, column < ops.shape(index)[1])
                return ops.where(own, _at(received, column), 0)

            return _over_positives(back, positive, distances.dtype)

        return smallest_beyond, gradient

    return beyond(distances)


def _over_positives(work: Callable[[Tensor], Tensor], positive: Tensor, dtype: Any) -> Tensor:
    """`Σ work(column)` `(n, m)` over the columns `(n, 1)` of positives; m: no more positives."""
    size = ops.shape(positive)[1]
    index = ops.arange(size, dtype="int32")[None, :]

    def following(column: Tensor) -> Tensor:
        later = ops.logical_and(positive, index > column)
        return ops.min(ops.where(later, index, size), axis=-1, keepdims=True)

    return ops.while_loop(
        lambda column, _: ops.any(column < size),
        lambda column, total: (following(column), total + work(column)),
        (
            following(ops.zeros_like(positive[:, :1], dtype=index.dtype) - 1),
            ops.zeros(ops.shape(positive), dtype),
        ),
    )[1]


def _at(matrix: Tensor, column: Tensor) -> Tensor:
    """Return the entries `(n, 1)` at columns `(n, 1)`; of the last column for larger ones."""
    return entries(matrix)(None, ops.minimum(column, ops.shape(matrix)[1] - 1))
