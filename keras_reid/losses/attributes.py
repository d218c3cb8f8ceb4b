"""Losses of attributes: weighted binary ones, and exclusive groups."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_reid.errors import InputError
from keras_reid.losses.common import ReidLoss

Tensor = Any


def checked_groups(exclusive: Sequence[Sequence[int]], count: int) -> tuple[tuple[int, ...], ...]:
    """The groups of exclusive columns, among `count`, as tuples.

    Raises:
        InputError: an empty group, a column in two, or one that is not there.
    """
    groups = tuple(tuple(int(i) for i in group) for group in exclusive)
    columns = [i for group in groups for i in group]
    if not all(groups) or len(set(columns)) < len(columns) or not set(columns) <= set(range(count)):
        raise InputError(
            f"Exclusive groups have columns among the {count} attributes, each in no other group, "
            f"but {[list(group) for group in groups]} were given: take those of an AttributeSchema."
        )
    return groups


@keras.saving.register_keras_serializable(package="keras_reid")
class AttributeLoss(ReidLoss):
    """`Σ_m w_m · BCE(t_m, z_m) + Σ_g CE(t_g, z_g)`, one number for each image.

    A binary attribute m is weighted by `w = e^(1 − r)` where it is true and `e^r` where it is
    false, r being the fraction of the training images for which it is true (DeepMAR, Li et al.,
    ACPR 2015), so that rare ones count. An exclusive group g, such as the colors of trousers, is
    one classifier: its cross-entropy of a softmax. What is unknown counts nothing: a target of −1,
    and a group in which not exactly one is true (Lin et al., Pattern Recognition 2019,
    arXiv:1703.07220, whose mean over attributes is this over their number).

    Args:
        rates: r of each of the m columns, in [0, 1]; those in groups are not looked at.
        exclusive: groups of columns of which at most one is true.

    `y_true` is 1 (true), 0 (false) or −1 (unknown), `(b, m)`, `y_pred` logits `(b, m)`; the result
    is `(b,)` in nats.

    Raises:
        InputError: rates beyond [0, 1], or groups that cannot be.
    """

    def __init__(
        self,
        rates: Sequence[float],
        exclusive: Sequence[Sequence[int]] = (),
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.rates = [float(rate) for rate in np.asarray(rates).ravel()]
        if not self.rates or not all(0 <= rate <= 1 for rate in self.rates):
            raise InputError(
                f"Rates are the shares of images with an attribute, in [0, 1], but {self.rates} "
                "were given: take the means of the training targets."
            )
        self.exclusive = checked_groups(exclusive, len(self.rates))
        grouped = {i for group in self.exclusive for i in group}
        self.binary = [i for i in range(len(self.rates)) if i not in grouped]

    @property
    def classifiers(self) -> int:
        """How many there are: binary attributes and groups."""
        return len(self.binary) + len(self.exclusive)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, logits = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        if {logits.shape[-1], target.shape[-1]} - {None, len(self.rates)}:
            raise InputError(
                f"There are {len(self.rates)} rates, but targets {tuple(target.shape)} and logits "
                f"{tuple(logits.shape)}: give all one column for each attribute."
            )
        loss = ops.zeros_like(logits[:, 0])
        if self.binary:
            loss = loss + self._binary(*(_of(x, self.binary) for x in (target, logits)))
        for group in self.exclusive:
            loss = loss + _exclusive(*(_of(x, group) for x in (target, logits)))
        return loss

    def _binary(self, target: Tensor, logits: Tensor) -> Tensor:
        rate = ops.convert_to_tensor([self.rates[i] for i in self.binary], dtype="float32")
        weight = ops.where(target > 0, ops.exp(1 - rate), ops.exp(rate))
        cost = ops.softplus(logits) - ops.where(target > 0, logits, 0.0)
        return ops.sum(ops.where(target < 0, 0.0, weight * cost), axis=-1)

    def get_config(self) -> dict[str, Any]:
        groups = [list(group) for group in self.exclusive]
        return {
            **super().get_config(),
            "rates": self.rates,
            "exclusive": groups,
        }


def _exclusive(target: Tensor, logits: Tensor) -> Tensor:
    yes = ops.cast(target > 0, "float32")
    cost = -ops.sum(yes * ops.log_softmax(logits, axis=-1), axis=-1)
    return ops.where(ops.sum(yes, axis=-1) == 1, cost, 0.0)


def _of(values: Tensor, columns: Sequence[int]) -> Tensor:
    return ops.take(values, columns, axis=-1)
