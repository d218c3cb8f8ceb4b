"""Distillation of the order of the nearest images."""

import math
from functools import cache
from itertools import combinations
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_reid import checks, distances
from keras_reid.errors import invalid
from keras_reid.losses.distillation import RelationLoss

Tensor = Any

# The loss sums over all 2ⁿ subsets of a list: 4096 for each query.
_LONGEST_SOFT_LIST = 12

# Below every score; finite, because infinity times a weight of 0 is NaN.
_NEVER = -1e30


@keras.saving.register_keras_serializable(package="keras_reid")
class RankDistillationLoss(RelationLoss):
    """`KL(P_t ‖ P_s)` over the orders of the teacher's nearest images, or `−log P_s(teacher's)`.

    DarkRank (Chen et al., AAAI 2018, arXiv:1707.01220). Each image is a query with a list of the
    teacher's `list_length` nearest images. Their scores are `S = −alpha · |q − x|^beta`, and an
    order π has the probability `P(π) = Π_i exp S_π(i) / Σ_{j≥i} exp S_π(j)`. `"soft"` compares all
    orders, `"hard"` only the order of the teacher (ListMLE).

    The sum does not enumerate the `n!` orders, because the next image depends only on the set R of
    the remaining ones. With `q(R)`, the teacher's probability that R remains at some step,
    `KL = Σ_R q(R) · (LSE_R(s) − LSE_R(t)) − Σ_i (s_i − t_i)`, which takes `n · 2ⁿ` steps.

    Args:
        mode: `"soft"` or `"hard"`.
        alpha, beta: factor and power of the distance in the score.
        list_length: n, images of a list; at most 12 if soft.
        normalize, gather: see `DistanceDistillationLoss`.

    `y_true` are the teacher's embeddings `(b, d)`, `y_pred` the student's `(b, e)`, with b above n;
    the result is `(b,)` in nats. The gradient at a distance of 0 is 0.

    Raises:
        InputError: an unknown mode, a factor, power or length out of range, or a small batch.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[0.0], [1.0], [3.0]]), np.zeros((3, 1))
        >>> loss = RankDistillationLoss("hard", list_length=2, normalize=False)
        >>> round(float(loss(teacher, student)), 3)  # both orders are equally likely: ln 2
        0.693
    """

    output = "embedding"

    def __init__(
        self,
        mode: str = "soft",
        alpha: float = 3.0,
        beta: float = 3.0,
        list_length: int = 4,
        normalize: bool = True,
        gather: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(normalize, gather, **options)
        checks.one_of(("soft", "hard"), mode=mode)
        checks.above(0, "3 is usual.", alpha=alpha, beta=beta)
        longest = _LONGEST_SOFT_LIST if mode == "soft" else math.inf
        fix = "4 is usual. Longer lists than 12 need mode='hard'."
        checks.within(f"[2, {longest}]", fix, list_length=list_length)
        self.mode = mode
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.list_length = list_length

    def distill(self, teacher: Tensor, student: Tensor) -> Tensor:
        images = teacher.shape[0]
        if images is not None and images <= self.list_length:
            rule = f"more than {self.list_length} images, the length of a list"
            raise invalid("y_pred", rule, images, "Use larger batches, or lower list_length.")
        teacher, student = self.points(teacher), self.points(student)
        to_others = ops.where(
            distances.same_index(teacher), distances.MASKED, distances.squared_euclidean(teacher)
        )
        nearness, others = ops.top_k(-to_others, self.list_length)
        squared = ops.take_along_axis(distances.squared_euclidean(student), others, axis=1)
        if self.mode == "hard":
            return _minus_log_probability(self._scores(squared))
        return _divergence(self._scores(-nearness), self._scores(squared))

    def _scores(self, squared: Tensor) -> Tensor:
        # A root, which every power below 2 is, has an infinite gradient at 0.
        zero = squared <= 0
        power = ops.power(ops.where(zero, 1.0, squared), self.beta / 2)
        return -self.alpha * ops.where(zero, 0.0, power)


def _minus_log_probability(scores: Tensor) -> Tensor:
    """Return `−log P` of the order of the scores `(b, n)`."""
    length = scores.shape[1]
    left = np.triu(np.ones((length, length), bool))
    rest = ops.logsumexp(ops.where(left, scores[:, None], _NEVER), axis=-1)
    return ops.sum(rest - scores, axis=-1)


def _divergence(t: Tensor, s: Tensor) -> Tensor:
    """`KL(P_t ‖ P_s)` over the orders of n scores `(b, n)`, see `RankDistillationLoss`."""
    # Only differences of scores matter, and small numbers are rounded less.
    t = t - ops.max(t, axis=-1, keepdims=True)
    s = s - ops.stop_gradient(ops.max(s, axis=-1, keepdims=True))
    of_teacher, of_student = _log_sums(t), _log_sums(s)
    left = _left(t, of_teacher)
    return ops.sum(left * (of_student - of_teacher), axis=-1) - ops.sum(s - t, axis=-1)


def _log_sums(scores: Tensor) -> Tensor:
    """`LSE_R = log Σ_{i∈R} exp S_i` `(b, 2ⁿ)`; bit i of the column R is 1 if i is in R."""
    sums = ops.full_like(scores[:, :1], _NEVER)
    for i in range(scores.shape[1]):
        score = scores[:, i : i + 1]
        # Not `ops.logaddexp`, which under TensorFlow has a wrong gradient where both are equal.
        top = ops.stop_gradient(ops.maximum(sums, score))
        with_i = top + ops.log(ops.exp(sums - top) + ops.exp(score - top))
        sums = ops.concatenate([sums, with_i], axis=-1)
    return sums


def _left(scores: Tensor, log_sums: Tensor) -> Tensor:
    """`q(R) = Σ_{i∉R} q(R ∪ i) · exp(S_i − LSE_{R∪i})` `(b, 2ⁿ)`: R remains at some step.

    0 for the empty set, which has no loss.
    """
    levels, in_order = _levels(scores.shape[1])
    left = [ops.ones_like(scores[:, :1])]
    for drawn, larger, place in levels:
        chance = ops.exp(ops.take(scores, drawn, axis=1) - ops.take(log_sums, larger, axis=1))
        left.append(ops.sum(ops.take(left[-1], place, axis=1) * chance, axis=-1))
    left.append(ops.zeros_like(scores[:, :1]))
    return ops.take(ops.concatenate(left, axis=-1), in_order, axis=1)


@cache
def _levels(length: int) -> tuple[list[tuple[Any, Any, Any]], Any]:
    """Return the sets of n − 1, n − 2, … 1 of n images, and the positions of all 2ⁿ sets.

    A level has for each set: the image drawn last, the number of the set before (bit i for image
    i), and the position of that set among the sets of its size.
    """
    places = {2**length - 1: 0}
    order, levels = list(places), []
    for size in range(length - 1, 0, -1):
        sets = [sum(1 << i for i in some) for some in combinations(range(length), size)]
        drawn = np.array([[i for i in range(length) if not some >> i & 1] for some in sets])
        larger = np.array(sets)[:, None] | 1 << drawn
        levels.append((drawn, larger, np.vectorize(places.__getitem__)(larger)))
        places = {some: place for place, some in enumerate(sets)}
        order += sets
    return levels, np.argsort([*order, 0])
