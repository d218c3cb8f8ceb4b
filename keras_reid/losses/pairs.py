"""Metric losses over all pairs of a batch, or over given pairs."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks, distances, mining
from keras_reid.errors import InputError
from keras_reid.losses.base import Batch, MetricLoss, Terms

Tensor = Any

_FORMS = ("hadsell", "linear", "squared_margin")
_REDUCTIONS = ("balanced", "all", "nonzero")


@keras.saving.register_keras_serializable(package="keras_reid")
class ContrastiveLoss(MetricLoss):
    """`d²` for a pair of one identity, `[margin − d]₊²` for a pair of different identities.

    Hadsell, Chopra & LeCun, CVPR 2006, without their factor ½.

    Args:
        margin: minimum distance of negatives with a loss of 0, in units of `distance`; unit vectors
            are at most 2 apart.
        form: `"hadsell"` as above; `"linear"`: `d` and `[margin − d]₊`; `"squared_margin"`: `d²`
            and `[margin − d²]₊`, with the margin in squared units.
        reduce_pairs: `"balanced"`: mean over the positive pairs plus mean over the negative pairs,
            which are many more; `"all"`: mean over all pairs; `"nonzero"`: balanced, but only over
            the pairs with a loss above 0.
        pairs: `"batch"`: all pairs of the batch; `"given"`: `y_true` `(b,)` is 1 where two images
            show one identity, else 0, and `y_pred` `(b,)` or `(b, 1)` are their distances.
        common: distance, normalize, gather, reduction, name and dtype of `MetricLoss`; unit
            vectors by default. The distances of given pairs are not changed.

    Example:
        >>> import numpy as np
        >>> loss = ContrastiveLoss(margin=2.0, normalize=False)
        >>> float(loss([0, 0, 1], np.array([[0.0], [1.0], [2.5]])))  # 1² + (0 + 0.5²) / 2
        1.125
    """

    allows_soft_margin = False

    def __init__(
        self,
        margin: float = 1.0,
        form: str = "hadsell",
        reduce_pairs: str = "balanced",
        pairs: str = "batch",
        distance: str | distances.Distance = "euclidean",
        normalize: bool | None = None,
        **common: Any,
    ) -> None:
        if normalize is None:
            normalize = pairs == "batch" and distance != "precomputed"
        super().__init__(margin, distance, normalize, **common)
        checks.one_of(_FORMS, form=form)
        checks.one_of(_REDUCTIONS, reduce_pairs=reduce_pairs)
        checks.one_of(("batch", "given"), pairs=pairs)
        if pairs == "given" and (self.normalize or self.gather or distance != "euclidean"):
            raise InputError(
                "`pairs` 'given' excludes distance, normalize and gather. Leave them out, or pass "
                "pairs='batch'.",
                "pairs",
            )
        self.form = form
        self.reduce_pairs = reduce_pairs
        self.pairs = pairs

    def batch(self, labels: Tensor, predictions: Tensor) -> Batch:
        if self.pairs == "batch":
            return super().batch(labels, predictions)
        apart = ops.cast(ops.reshape(predictions, (-1,)), "float32")
        same = ops.cast(labels, "float32") > 0.5
        return Batch(apart, same, ops.logical_not(same), mining.entries(apart))

    def terms(self, batch: Batch) -> list[Terms]:
        (pull, push), positive, negative = self.costs(batch.distances), *batch[1:3]
        if self.reduce_pairs == "all":
            either = ops.logical_or(positive, negative)
            return [Terms(ops.where(positive, pull, push), either)]
        if self.reduce_pairs == "nonzero":
            positive = ops.logical_and(positive, pull > 0)
            negative = ops.logical_and(negative, push > 0)
        return [Terms(pull, positive), Terms(push, negative)]

    def costs(self, pairwise: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of each distance as a positive pair, and as a negative pair."""
        square = pairwise * pairwise
        if self.form == "linear":
            return pairwise, ops.relu(self.margin - pairwise)
        if self.form == "squared_margin":
            return square, ops.relu(self.margin - square)
        return square, ops.square(ops.relu(self.margin - pairwise))


@keras.saving.register_keras_serializable(package="keras_reid")
class LiftedStructureLoss(MetricLoss):
    """`[log Σ_P exp(d⁺) + log Σ_N exp(margin − d⁻)]₊` per anchor, the mean over the anchors.

    The generalized lifted embedding loss of Hermans et al. (arXiv:1703.07737, who sum over the
    anchors) after Song et al. (CVPR 2016, arXiv:1511.06452).

    Example:
        >>> import numpy as np
        >>> loss = LiftedStructureLoss(margin=1.0)
        >>> float(loss([0, 0, 1], np.array([[0.0], [2.0], [3.0]])))  # (2 − 2) and (2 − 0)
        1.0
    """

    allows_soft_margin = False

    def terms(self, batch: Batch) -> list[Terms]:
        joint = log_sums_exp(batch.distances, self.margin - batch.distances, batch)
        return [Terms(ops.relu(joint), mining.exists(batch.positive, batch.negative))]


@keras.saving.register_keras_serializable(package="keras_reid")
class CircleLoss(MetricLoss):
    """`log(1 + Σ_N exp(γ α⁻ (s⁻ − m)) · Σ_P exp(−γ α⁺ (s⁺ − 1 + m)))` per anchor.

    With similarities `s = 1 − d` and constant weights `α⁺ = [1 + m − s⁺]₊`, `α⁻ = [s⁻ + m]₊`, on
    the pairs of the batch (Sun et al., CVPR 2020, arXiv:2002.10857).

    Args:
        margin: m, the relaxation; s⁺ should exceed 1 − m and s⁻ stay below m.
        scale: γ.
        common: distance, normalize, gather, reduction, name and dtype of `MetricLoss`; cosine by
            default, so that s is the cosine.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # s⁺ = 1, s⁻ = 0.
        >>> loss = CircleLoss(margin=0.25, scale=16.0)
        >>> round(float(loss([0, 0, 1], embeddings)), 3)  # ln(1 + e⁻¹ · e⁻¹)
        0.127
    """

    allows_soft_margin = False

    def __init__(
        self,
        margin: float = 0.25,
        scale: float = 64.0,
        distance: str | distances.Distance = "cosine",
        **common: Any,
    ) -> None:
        super().__init__(margin, distance, **common)
        checks.above(0, "64 is usual.", scale=scale)
        self.scale = scale

    def terms(self, batch: Batch) -> list[Terms]:
        similarity = 1 - batch.distances
        weight_p = ops.stop_gradient(ops.relu(1 - similarity + self.margin))
        weight_n = ops.stop_gradient(ops.relu(similarity + self.margin))
        pull = -self.scale * weight_p * (similarity - 1 + self.margin)
        push = self.scale * weight_n * (similarity - self.margin)
        joint = log_sums_exp(pull, push, batch)
        return [Terms(ops.softplus(joint), mining.exists(batch.positive, batch.negative))]


def log_sums_exp(pull: Tensor, push: Tensor, batch: Batch) -> Tensor:
    """`log Σ_P exp(pull) + log Σ_N exp(push)` of each row `(b,)`; finite where a sum is empty.

    A pair is in one of the sums at most, so one exponential serves both.
    """
    masks = batch.positive, batch.negative
    chosen = ops.where(masks[0], pull, ops.where(masks[1], push, -distances.MASKED))
    constant = ops.stop_gradient(chosen)
    largest = [
        ops.max(ops.where(mask, constant, -distances.MASKED), axis=-1, keepdims=True)
        for mask in masks
    ]
    power = ops.exp(chosen - ops.where(masks[0], *largest))
    sums = [ops.sum(ops.where(mask, power, 0), axis=-1) for mask in masks]
    logs = [ops.log(ops.where(total > 0, total, 1)) for total in sums]
    return logs[0] + logs[1] + largest[0][:, 0] + largest[1][:, 0]
