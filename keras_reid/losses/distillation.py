"""Distillation losses of logits, embeddings and distances. No gradient reaches the teacher.

All are `distill(teacher_output, student_output)`: the output of the teacher is the `y_true` of
Keras. Two models that learn from each other do not share a gradient.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from keras_reid import checks, distances, replicas
from keras_reid.distances.rows import squared_paired
from keras_reid.losses.base import pairwise
from keras_reid.losses.common import ReidLoss

Tensor = Any


class DistillationLoss(ReidLoss):
    """A student's loss against a teacher's output: `(b, …), (b, …) -> (b,)`, in float32.

    Attributes:
        output: output of a model that `train.py` distills with the loss, see `models.build`.

    Example:
        >>> import numpy as np
        >>> class FeatureLoss(DistillationLoss):
        ...     def distill(self, teacher, student):
        ...         return keras.ops.sum((teacher - student) ** 2, axis=-1)
        >>> float(FeatureLoss()(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])))
        25.0
    """

    output: ClassVar[str]

    def ensemble(self, teachers: Sequence[Tensor]) -> Tensor:
        """Return one output that represents several teachers."""
        raise NotImplementedError

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        teacher, student = self._in_own_precision(y_true), self._in_own_precision(y_pred)
        fix = "Pass one batch through both models."
        checks.shapes(fix, y_true=("(b, …)", teacher.shape), y_pred=("(b, …)", student.shape))
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

    Example:
        >>> import numpy as np
        >>> teacher, student = np.log([[0.5, 0.5]]), np.log([[0.75, 0.25]])
        >>> round(float(LogitDistillationLoss()(teacher, student)), 3)  # ½ ln(2/3) + ½ ln 2
        0.144
    """

    output = "logits"

    def __init__(self, temperature: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        fix = "1 is usual among equals, 4 for a larger teacher."
        checks.above(0, fix, temperature=temperature)
        self.temperature = float(temperature)

    def distill(self, teacher: Tensor, student: Tensor) -> Tensor:
        fix = "Train both on the same identities, or distill ranks or distances."
        checks.shapes(fix, y_true=("(…, c)", teacher.shape), y_pred=("(…, c)", student.shape))
        t = ops.log_softmax(teacher / self.temperature)
        s = ops.log_softmax(student / self.temperature)
        return self.temperature**2 * ops.sum(ops.exp(t) * (t - s), axis=-1)

    def ensemble(self, teachers: Sequence[Tensor]) -> Tensor:
        """Return the logits of the mean probability at this temperature (DML_e)."""
        logits = [self._in_own_precision(t) / self.temperature for t in teachers]
        logs = ops.stack([ops.log_softmax(t) for t in logits])
        return self.temperature * (ops.logsumexp(logs, axis=0) - math.log(len(teachers)))


@keras.saving.register_keras_serializable(package="keras_reid")
class CosineDistillationLoss(DistillationLoss):
    """`1 − cos(t, s) = ½ |t/|t| − s/|s||²` of the embeddings of teacher and student.

    The student imitates the direction of each embedding. If the sizes differ, pass the output of a
    linear layer, see `keras_reid.models.with_projection`.

    `y_true` are the teacher's embeddings `(b, d)`, `y_pred` those of the student; the result is
    `(b,)`, from 0 to 2.

    Raises:
        InputError: if the shapes differ.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[2.0, 0.0]]), np.array([[3.0, 4.0]])
        >>> round(float(CosineDistillationLoss()(teacher, student)), 3)  # 1 − 3/5
        0.4
    """

    output = "embedding"

    def distill(self, teacher: Tensor, student: Tensor) -> Tensor:
        fix = "Distill distances, or let the student predict the teacher's embedding."
        checks.shapes(fix, y_true=("(b, d)", teacher.shape), y_pred=("(b, d)", student.shape))
        # The cosine would cancel near 1.
        return squared_paired(distances.unit(teacher), distances.unit(student)) / 2

    def ensemble(self, teachers: Sequence[Tensor]) -> Tensor:
        """Return the mean of the unit embeddings."""
        units = [distances.unit(self._in_own_precision(t)) for t in teachers]
        return ops.mean(ops.stack(units), axis=0)


class RelationLoss(DistillationLoss):
    """Relational distillation: match the pairwise geometry of a batch.

    Args:
        normalize: scale the embeddings to length 1 first.
        gather: compare the images of all replicas of a distributed training run.
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
class DistanceDistillationLoss(RelationLoss):
    """`1/b² · Σ_ij (t_ij − s_ij)²` over the distance matrices of teacher and student.

    The metric mutual loss of AlignedReID (Zhang et al., arXiv:1711.08184) is this in both
    directions. The teacher is constant: in each direction, only the student gets a gradient,
    `2/b² · (s − t)`.

    Args:
        distance: name in `keras_reid.distances.DISTANCES` or a function `(b, …) -> (b, b)`.
        normalize: scale the embeddings to length 1 first, which makes embeddings of different
            architectures comparable.
        gather: compare the images of all replicas of a distributed training run.

    `y_true` are the teacher's embeddings `(b, d)`, `y_pred` the student's `(b, e)`, of the same
    images in the same order; the result is `(b,)` in squared units of the distance.

    Raises:
        InputError: if the distance is unknown or the batches differ.

    Example:
        >>> import numpy as np
        >>> teacher, student = np.array([[0.0], [3.0]]), np.array([[0.0], [5.0]])
        >>> float(DistanceDistillationLoss()(teacher, student))  # ¼ · (2² + 2²)
        2.0
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
