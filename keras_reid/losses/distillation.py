"""Distillation losses of logits, ranks and distances. No gradient reaches the teacher.

All are `distill(teacher_output, student_output)`: the output of the teacher is the `y_true` of
Keras. Two models that learn from each other do not share a gradient.
"""

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_reid import checks, distances, replicas
from keras_reid.errors import invalid
from keras_reid.losses.base import pairwise
from keras_reid.losses.common import ReidLoss

Tensor = Any

# The loss sums over all 2ⁿ subsets of a list: 4096 for each query.
_LONGEST_SOFT_LIST = 12

# Below every score; finite, because infinity times a weight of 0 is NaN.
_NEVER = -1e30


class DistillationLoss(ReidLoss):
    """A student's loss against a teacher's output: `(b, …), (b, …) -> (b,)`, in float32.

    Attributes:
        output: the output of a model that is distilled by `train.py`, see `models.build`.
    """

    output: ClassVar[str]

    def ensemble(self, teachers: Sequence[Tensor]) -> Tensor:
        """Return one output that represents several teachers."""
        raise NotImplementedError

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        teacher, student = self._in_own_precision(y_true), self._in_own_precision(y_pred)
        expected, received = teacher.shape[0], student.shape[0]
        if None not in (expected, received) and expected != received:
            fix = "Pass one batch through both models."
            raise invalid("y_pred", f"{expected} outputs, one for each of y_true", received, fix)
        return self.distill(ops.stop_gradient(teacher), student)

    def distill(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Return the loss of each image `(b,)`."""
        raise NotImplementedError

    def _in_own_precision(self, output: Tensor) -> Tensor:
        return ops.convert_to_tensor(output, self.dtype)


@keras.saving.register_keras_serializable(package="keras_reid")
class LogitDistillationLoss(DistillationLoss):
    """`T² · KL(σ(t / T) ‖ σ(s / T))`, the sum over the classes.

    Distillation (Hinton et al., arXiv:1503.02531) and, with T = 1 and in both directions, deep
    mutual learning (Zhang et al., CVPR 2018, arXiv:1706.00384). Computed from logits: exact for
    confident teachers, where `keras.losses.KLDivergence` clips probabilities.

    Args:
        temperature: T, above 0. The factor T² compensates for a gradient that shrinks with 1 / T².

    `y_true` are logits `(b, c)` of the teacher, `y_pred` of the student; the result is `(b,)` nats.

    Raises:
        InputError: if the temperature is not above 0 or the shapes differ.
    """

    output = "logits"

    def __init__(self, temperature: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        fix = "1 is usual among equals, 4 for a larger teacher."
        checks.above(0, fix, temperature=temperature)
        self.temperature = float(temperature)

    def distill(self, teacher: Tensor, student: Tensor) -> Tensor:
        expected, received = teacher.shape[-1], student.shape[-1]
        if None not in (expected, received) and expected != received:
            rule = f"logits of {expected} classes as the teacher has"
            fix = "Train both on the same identities, or distill ranks or distances."
            raise invalid("y_pred", rule, received, fix)
        t = ops.log_softmax(teacher / self.temperature)
        s = ops.log_softmax(student / self.temperature)
        return self.temperature**2 * ops.sum(ops.exp(t) * (t - s), axis=-1)

    def ensemble(self, teachers: Sequence[Tensor]) -> Tensor:
        """Return the logits of the mean probability at this temperature (DML_e)."""
        logits = [self._in_own_precision(t) / self.temperature for t in teachers]
        logs = ops.stack([ops.log_softmax(t) for t in logits])
        return self.temperature * (ops.logsumexp(logs, axis=0) - math.log(len(teachers)))


class _Relations(DistillationLoss):
    """Relational distillation: match the pairwise geometry of a batch.

    Args:
        normalize: scale the embeddings to length 1 first.
        gather: compare the images of all replicas of a distributed training.
    """

    def __init__(self, normalize: bool, gather: bool, **options: Any) -> None:
        super().__init__(**options)
        self.normalize = normalize
        self.gather = gather

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if not self.gather:
            return super().call(y_true, y_pred)
        everyone, start = replicas.gather(y_pred)
        relations = super().call(replicas.gather(y_true).rows, everyone)
        return ops.slice(relations, (start,), (ops.shape(y_pred)[0],))

    def points(self, embeddings: Tensor) -> Tensor:
        return distances.unit(embeddings) if self.normalize else embeddings

    def ensemble(self, teachers: Sequence[Tensor]) -> Tensor:
        """Concatenate the embeddings, so that squared distances are the means of the teachers'."""
        points = [self.points(self._in_own_precision(t)) for t in teachers]
        return ops.concatenate(points, axis=-1) / math.sqrt(len(teachers))


@keras.saving.register_keras_serializable(package="keras_reid")
class DistanceDistillationLoss(_Relations):
    """`1/b² · Σ_ij (t_ij − s_ij)²` over the distance matrices of teacher and student.

    The metric mutual loss of AlignedReID (Zhang et al., arXiv:1711.08184) is this in both
    directions. The teacher is constant, so that each side gets the gradient `2/b² · (s − t)`.

    Args:
        distance: name in `keras_reid.distances.DISTANCES` or a function `(b, …) -> (b, b)`.
        normalize: scale the embeddings to length 1 first, which makes embeddings of different
            architectures comparable.
        gather: compare the images of all replicas of a distributed training.

    `y_true` are the teacher's embeddings `(b, d)`, `y_pred` the student's `(b, e)`, of the same
    images in the same order; the result is `(b,)` in squared units of the distance.

    Raises:
        InputError: if the distance is unknown or the batches differ.
    """

    output = "features"

    def __init__(
        self,
        distance: str | distances.Distance = "euclidean",
        normalize: bool = False,
        gather: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(normalize, gather, **options)
        self.distance = distance
        self._pairwise = pairwise(distance, normalize or gather)

    def distill(self, teacher: Tensor, student: Tensor) -> Tensor:
        t, s = self._pairwise(self.points(teacher)), self._pairwise(self.points(student))
        return ops.mean(ops.square(t - s), axis=-1)


@keras.saving.register_keras_serializable(package="keras_reid")
class RankDistillationLoss(_Relations):
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
        if not 2 <= list_length <= longest:
            rule = f"at least 2, and at most {_LONGEST_SOFT_LIST} if soft"
            raise invalid("list_length", rule, list_length, "4 is usual.")
        self.mode = mode
        self.alpha = float(alpha)
        self.beta = float(beta)
        self.list_length = list_length

    def distill(self, teacher: Tensor, student: Tensor) -> Tensor:
        images = teacher.shape[0]
        if images is not None and images <= self.list_length:
            rule = f"more than {self.list_length} images, the length of a list"
            raise invalid("y_pred", rule, images, "Raise the batch or lower list_length.")
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
