"""Quadruplet losses, which also compare the distance between two other identities."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks, distances, mining
from keras_reid.losses.base import Batch, MetricLoss, Terms, hinge, mean_over
from keras_reid.losses.metric import check_absolute

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class QuadrupletLoss(MetricLoss):
    """`[d_ij − d_ik + margin]₊ + [d_ij − d_lk + margin2]₊` (Chen et al., arXiv:1704.01719).

    i and j are one identity; k, and in the second part l and k, are others, all three different:
    with two identities the second part is 0. Each part is the mean over its comparisons.

    Args:
        margin: margin of the first part, in units of `distance`; `"soft"` is softplus.
        margin2: margin of the second, weaker part; `"soft"` is softplus.
        miner: `"batch_hard"`: for each anchor the farthest positive, the nearest negative and the
            nearest pair of two other identities; `"batch_all"`: every comparison. Its second part
            takes O(b⁴) memory, 67 MB per tensor for 64 images.
        adaptive: replace the margins by `m` and `m / 2`, with `m` the mean distance of
            negative pairs minus that of positive pairs, as constants, and at least 0.
        common: distance, normalize, gather, reduction, name and dtype of `MetricLoss`; unit
            vectors and squared distances by default. For the learned metric g of the paper, pass
            `g ** 2` from `keras_reid.layers.PairMetric` and `distance="precomputed"`.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [1.0], [3.0], [3.5]])  # of three identities.
        >>> loss = QuadrupletLoss(distance="euclidean", normalize=False)
        >>> float(loss([0, 0, 1, 2], embeddings))  # [1 − 3 + 1]₊, [1 − 2 + 1]₊ and 1 − 0.5 + 0.5
        1.0
    """

    def __init__(
        self,
        margin: float | str = 1.0,
        margin2: float | str = 0.5,
        miner: str = "batch_hard",
        adaptive: bool = False,
        distance: str | distances.Distance = "squared_euclidean",
        normalize: bool | None = None,
        **common: Any,
    ) -> None:
        if normalize is None:
            normalize = distance != "precomputed"
        super().__init__(margin, distance, normalize, **common)
        checks.margin(margin2=margin2)
        checks.one_of(("batch_hard", "batch_all"), miner=miner)
        self.margin2 = margin2
        self.miner = miner
        self.adaptive = adaptive

    @property
    def is_sparse(self) -> bool:
        return self.miner == "batch_hard"

    def terms(self, batch: Batch) -> list[Terms]:
        margin, margin2 = self.margins(batch)
        near = self.mine(batch)
        apart = hardest_apart(batch, near) if self.miner == "batch_hard" else all_apart(batch)
        return [
            Terms(hinge(near.positive - near.negative, margin), near.valid),
            Terms(hinge(apart.positive - apart.negative, margin2), apart.valid),
        ]

    def margins(self, batch: Batch) -> tuple[Any, Any]:
        """Return both margins: the arguments, or the adaptive margins of the batch."""
        if not self.adaptive:
            return self.margin, self.margin2
        apart = mean_over(batch.negative, batch.distances)
        gap = ops.relu(apart - mean_over(batch.positive, batch.distances))
        return ops.stop_gradient(gap), ops.stop_gradient(gap / 2)


@keras.saving.register_keras_serializable(package="keras_reid")
class ImprovedQuadrupletLoss(QuadrupletLoss):
    """The quadruplet loss `+ weight · [d⁺ − pull]₊ + push_weight · [push − d°]₊`.

    The union of the improved triplet and the quadruplet loss, batch-hard:
    `[d⁺ − d⁻ + margin]₊ + [d⁺ − d° + margin2]₊` and these absolute bounds, where d⁺ is the
    farthest positive, d⁻ the nearest negative and d° the nearest pair of two other identities.

    Args:
        margin, margin2, distance, normalize, common: as in `QuadrupletLoss`.
        pull: maximum distance of a positive without a pull.
        weight: weight of the pull.
        push: minimum distance of two other identities without a push.
        push_weight: weight of the push.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [1.0], [3.0], [3.5]])
        >>> units = {"distance": "euclidean", "normalize": False}
        >>> loss = ImprovedQuadrupletLoss(weight=0.0, push=1.0, push_weight=1.0, **units)
        >>> float(loss([0, 0, 1, 2], embeddings))  # the quadruplet loss 1 + [1 − 0.5]₊
        1.5
    """

    def __init__(
        self,
        margin: float | str = 1.0,
        margin2: float | str = 0.5,
        pull: float = 0.01,
        weight: float = 0.002,
        push: float = 1.0,
        push_weight: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(margin, margin2, "batch_hard", False, **common)
        check_absolute("pull", pull, weight)
        check_absolute("push", push, push_weight)
        self.pull = pull
        self.weight = weight
        self.push = push
        self.push_weight = push_weight

    def terms(self, batch: Batch) -> list[Terms]:
        near = self.mine(batch)
        apart = hardest_apart(batch, near)
        relative = self.hinge(near.positive - near.negative)
        across = hinge(apart.positive - apart.negative, self.margin2)
        return [
            Terms(relative + self.weight * ops.relu(near.positive - self.pull), near.valid),
            Terms(across + self.push_weight * ops.relu(self.push - apart.negative), apart.valid),
        ]

    def get_config(self) -> dict[str, Any]:
        fixed = ("miner", "adaptive")
        config = super().get_config().items()
        return {name: value for name, value in config if name not in fixed}


def hardest_apart(batch: Batch, near: mining.Mined) -> mining.Mined:
    """Return each anchor's positive in `near` and the nearest pair (l, k) of two other identities.

    The nearest pair of the whole batch serves every anchor of a third identity. An anchor of the
    identity of l or k needs the nearest pair without that identity.
    Thus three searches of the matrix serve all anchors.
    """
    pairwise, positive, negative, read = batch
    choice = ops.stop_gradient(pairwise)
    same = ops.logical_not(negative)
    row, column = mining.nearest_pair(choice, negative)
    of_row, of_column = ops.take(same, row, axis=0)[0], ops.take(same, column, axis=0)[0]

    def without(identity: Tensor) -> Tensor:
        other = ops.logical_not(identity)
        return ops.logical_and(negative, ops.logical_and(other[:, None], other[None, :]))

    others = [without(of_row), without(of_column)]
    pairs = [(row, column), *(mining.nearest_pair(choice, mask) for mask in others)]
    nearest = [read(*pair) for pair in pairs]
    exists = [ops.any(mask) for mask in (negative, *others)]

    def by_anchor(everywhere: Tensor, at_row: Tensor, at_column: Tensor) -> Tensor:
        return ops.where(of_row, at_row, ops.where(of_column, at_column, everywhere))

    return mining.Mined(
        near.positive,
        by_anchor(*nearest),
        ops.logical_and(ops.any(positive, axis=-1), by_anchor(*exists)),
    )


def all_apart(batch: Batch) -> mining.Mined:
    """Return each positive pair with each pair of two other identities `(b, b, b, b)`."""
    pairwise, positive, negative, _ = batch
    apart = ops.logical_and(negative[:, :, None], negative[:, None, :])  # i, l and i, k
    apart = ops.logical_and(apart, negative[None])  # l, k
    valid = ops.logical_and(positive[:, :, None, None], apart[:, None])
    return mining.Mined(pairwise[:, :, None, None], pairwise[None, None], valid)
