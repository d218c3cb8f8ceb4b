"""Losses of attributes: weighted binary attributes, and exclusive groups."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_reid import checks
from keras_reid.errors import invalid
from keras_reid.losses.common import ReidLoss

Tensor = Any


def checked_groups(exclusive: Sequence[Sequence[int]], count: int) -> tuple[tuple[int, ...], ...]:
    """Return groups of exclusive columns as tuples.

    Args:
        exclusive: groups of columns.
        count: number of columns.

    Raises:
        InputError: an empty group, a column in two groups, or an unknown column.
    """
    groups = tuple(tuple(int(i) for i in group) for group in exclusive)
    columns = [i for group in groups for i in group]
    if not all(groups) or len(set(columns)) < len(columns) or not set(columns) <= set(range(count)):
        rule = f"groups of at least one column from 0 to {count - 1}, with no column twice"
        received = [list(group) for group in groups]
        raise invalid("exclusive", rule, received, "Pass the groups of an AttributeSchema.")
    return groups


@keras.saving.register_keras_serializable(package="keras_reid")
class AttributeLoss(ReidLoss):
    """`Σ_m w_m · BCE(t_m, z_m) + Σ_g CE(t_g, z_g)`, one number for each image.

    A binary attribute m has the weight `w = e^(1 − r)` where it is true and `e^r` where it is
    false. Its rate r is the fraction of training images with the attribute, so that the rarer of
    the two values counts more (DeepMAR, Li et al., ACPR 2015). An exclusive group g, such as the
    colors of trousers, has the cross-entropy of a softmax. Unknown attributes add 0. A binary
    attribute is unknown if its target is −1, and a group unless exactly one of its columns is true.
    (Lin et al., Pattern Recognition 2019, arXiv:1703.07220, divide the sum by the number of
    attributes.)

    Args:
        rates: r of each of the m columns, in [0, 1]; rates of columns in groups are not used.
        exclusive: groups of columns; at most one column of a group is true.

    `y_true` is 1 (true), 0 (false) or −1 (unknown), `(b, m)`, `y_pred` logits `(b, m)`; the result
    is `(b,)` in nats.

    Raises:
        InputError: rates outside [0, 1], or invalid groups.

    Example:
        >>> import numpy as np
        >>> loss = AttributeLoss(rates=[0.5, 0.1])
        >>> true, logits = np.array([[1.0, -1.0]]), np.array([[0.0, 0.0]])  # the second is unknown
        >>> round(float(loss(true, logits)), 3)  # e^0.5 · ln 2
        1.143
    """

    def __init__(
        self,
        rates: Sequence[float],
        exclusive: Sequence[Sequence[int]] = (),
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.rates = [float(rate) for rate in np.asarray(rates).ravel()]
        for rate in self.rates:
            checks.within("[0, 1]", "Pass the means of the training targets.", rates=rate)
        self.exclusive = [[*group] for group in checked_groups(exclusive, len(self.rates))]
        grouped = {i for group in self.exclusive for i in group}
        self.binary = [i for i in range(len(self.rates)) if i not in grouped]

    @property
    def classifiers(self) -> int:
        """Number of classifiers: binary attributes and groups."""
        return len(self.binary) + len(self.exclusive)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        target, logits = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        pattern, fix = f"(b, {len(self.rates)})", "Pass one column for each of `rates`."
        checks.shapes(fix, y_pred=(pattern, logits.shape), y_true=(pattern, target.shape))
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


def _exclusive(target: Tensor, logits: Tensor) -> Tensor:
    yes = ops.cast(target > 0, "float32")
    cost = -ops.sum(yes * ops.log_softmax(logits, axis=-1), axis=-1)
    return ops.where(ops.sum(yes, axis=-1) == 1, cost, 0.0)


def _of(values: Tensor, columns: Sequence[int]) -> Tensor:
    return ops.take(values, columns, axis=-1)
