"""Which distances are compared: weights over a distance matrix. They know no embeddings.

A miner is `(distances (n, m), positive (n, m), negative (n, m)) -> Mined`. It selects by weights
and never by indices whose number depends on the data, so shapes are static and XLA compiles it.

A weighting is `(distances (n, m), mask (n, m)) -> weights (n, m)` that sum to 1 along the last
axis where the mask holds anything, and to 0 where it is empty. Nearest negatives are the same
weighting of the negated distances.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_reid.errors import InputError

Tensor = Any


class Mined(NamedTuple):
    """The comparisons found: d⁺, d⁻ and which of them exist, each `(n, …)`, anchors first."""

    positive: Tensor
    negative: Tensor
    valid: Tensor


Weighting = Callable[[Tensor, Tensor], Tensor]
Miner = Callable[[Tensor, Tensor, Tensor], Mined]

# Finite, because infinity times a weight of 0 is NaN; beyond the distances of any float32 points
# that can be squared.
_FAR = 1e38


def hardest(distances: Tensor, mask: Tensor) -> Tensor:
    """One-hot at the largest distance in the mask; the first of equals."""
    best = ops.argmax(ops.where(mask, distances, -_FAR), axis=-1)
    index = ops.arange(ops.shape(distances)[-1], dtype=best.dtype)
    chosen = ops.logical_and(index == best[..., None], mask)
    return ops.cast(chosen, distances.dtype)


def softest(distances: Tensor, mask: Tensor) -> Tensor:
    """Softmax of the distances in the mask (Ristani & Tomasi, CVPR 2018, arXiv:1803.10859)."""
    weights = ops.softmax(ops.where(mask, distances, -_FAR), axis=-1)
    return ops.where(mask, weights, 0)


def weighted(weighting: Weighting, axis: int | tuple[int, int] = -1) -> Miner:
    """`d⁺ = Σ w(D, positive) · D` and `d⁻ = Σ w(−D, negative) · D`; the weights are constants.

    Args:
        weighting: how much each distance counts, such as `hardest`.
        axis: the scope of a comparison: -1 mines for every anchor, (-2, -1) once in the batch,
            and then every anchor gets that same comparison.

    Returns:
        A miner whose results have the shape `(n,)`.
    """

    def scope(matrix: Tensor) -> Tensor:
        return matrix if axis == -1 else ops.reshape(matrix, (1, -1))

    def mean(distances: Tensor, weights: Tensor) -> Tensor:
        return ops.sum(ops.stop_gradient(weights) * distances, axis=-1)

    def mine(distances: Tensor, positive: Tensor, negative: Tensor) -> Mined:
        anchors = ops.shape(distances)[:1]
        distances, positive, negative = scope(distances), scope(positive), scope(negative)
        mined = Mined(
            mean(distances, weighting(distances, positive)),
            mean(distances, weighting(-distances, negative)),
            ops.logical_and(ops.any(positive, axis=-1), ops.any(negative, axis=-1)),
        )
        return Mined(*(ops.broadcast_to(column, anchors) for column in mined))

    return mine


def all_triplets(distances: Tensor, positive: Tensor, negative: Tensor) -> Mined:
    """Every (anchor, positive, negative): `(n, m, 1)`, `(n, 1, m)` and their mask `(n, m, m)`."""
    valid = ops.logical_and(positive[:, :, None], negative[:, None, :])
    return Mined(distances[:, :, None], distances[:, None, :], valid)


batch_hard = weighted(hardest)
soft_hard = weighted(softest)
margin_sample = weighted(hardest, axis=(-2, -1))

MINERS: dict[str, Miner] = {
    "batch_hard": batch_hard,
    "soft_hard": soft_hard,
    "margin_sample": margin_sample,
    "all_triplets": all_triplets,
}


def get(miner: str | Miner) -> Miner:
    """The miner of that name; a function is returned as it is.

    Raises:
        InputError: if the name is unknown.
    """
    if callable(miner):
        return miner
    if miner not in MINERS:
        raise InputError(
            f"A miner is a function or one of {', '.join(MINERS)}, but {miner!r} was given: "
            "choose one of these."
        )
    return MINERS[miner]
