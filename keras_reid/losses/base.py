"""Base class of metric losses: distances, pairs, and the mean over comparisons."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_reid import checks, distances, mining, replicas
from keras_reid.distances.rows import at_least_float32
from keras_reid.errors import invalid
from keras_reid.losses.labels import LabeledLoss, checked_labels

Tensor = Any

# From this batch size on, the selected distances are computed again from their points. Their
# gradient touches only these rows. The gradient of a whole matrix takes b² d steps, which is faster
# for small batches. Measured in benchmarks/losses.py.
_SPARSE_FROM = 512

# Keys of the statistics of `MetricLoss.measure`.
STATISTICS = ("active", "positive", "negative", "norm")


class Batch(NamedTuple):
    """The distances of a batch to itself `(b, b)`, and which pairs may be compared.

    `read(rows, columns)` returns single distances, see `keras_reid.mining`.
    """

    distances: Tensor
    positive: Tensor
    negative: Tensor
    read: mining.Reader


class Terms(NamedTuple):
    """The loss of each comparison `(b, …)`, anchors first, and which comparisons exist."""

    values: Tensor
    valid: Tensor


@keras.saving.register_keras_serializable(package="keras_reid")
class MetricLoss(LabeledLoss):
    """`mean over the valid comparisons of [d⁺ − d⁻ + margin]₊`: distance × miner × formula.

    A subclass defines another `miner` or `formula(mined)`, or all its `terms(batch)`. A comparison
    is valid if its positive (same identity, another image) and its negative exist. If there is no
    valid comparison, the loss and its gradient are exactly 0.

    Args:
        margin: minimum difference between negative and positive distance, in units of `distance`;
            `"soft"` replaces the hinge by softplus, which has no margin.
        distance: name in `keras_reid.distances.DISTANCES`, or a function `(b, …) -> (b, b)`,
            which must be a registered Keras serializable if the loss is to be saved. With
            `"precomputed"` the predictions are themselves the distances `(b, b)` of the batch.
        normalize: scale the embeddings to length 1 first.
        gather: compare the images of all replicas of a distributed run, as one replica with
            the whole batch does. Otherwise each replica compares its own images.
        common: label, reduction, name and dtype of `ReidLoss`.

    `y_true` are identities `(b,)` or `(b, 1)`, any integers; `y_pred` embeddings `(b, d)`. The
    result is `(b,)` in float32, one value per anchor, scaled so that its mean over the batch is the
    mean over the valid comparisons.

    Raises:
        InputError: if the margin is negative, the distance unknown, the labels have several
            columns (one-hot) or the sizes do not fit.

    Example:
        >>> import numpy as np
        >>> class RatioLoss(MetricLoss):
        ...     def formula(self, mined):
        ...         return mined.positive / mined.negative
        >>> embeddings = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> print(np.round(RatioLoss(reduction=None)([0, 0, 1, 1], embeddings), 2))
        [0.75 3.   5.   0.83]
    """

    miner: str | mining.Miner = "batch_hard"
    allows_soft_margin = True

    def __init__(
        self,
        margin: float | str = 0.3,
        distance: str | distances.Distance = "euclidean",
        normalize: bool = False,
        gather: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        checks.margin(self.allows_soft_margin, margin=margin)
        self.margin = margin
        self.distance = distance
        self.normalize = normalize
        self.gather = gather
        self._pairwise = pairwise(distance, normalize or gather)

    def formula(self, mined: mining.Mined) -> Tensor:
        """Return the loss of each comparison, of the shape of `mined.valid`."""
        return self.hinge(mined.positive - mined.negative)

    def terms(self, batch: Batch) -> Sequence[Terms]:
        """Return the terms. The loss is the sum of their means over the valid comparisons."""
        mined = self.mine(batch)
        return [Terms(self.formula(mined), mined.valid)]

    def mine(self, batch: Batch) -> mining.Mined:
        """Return the comparisons of the miner of this loss."""
        return mining.get(self.miner)(batch.distances, batch.positive, batch.negative, batch.read)

    @property
    def is_sparse(self) -> bool:
        """True if only single distances that the miner selected have a gradient.

        A subclass that overrides `terms` or `mine` overrides this property, too.
        """
        kind = type(self)
        inherited = kind.terms is MetricLoss.terms and kind.mine is MetricLoss.mine
        return inherited and mining.get(self.miner) in mining.SPARSE

    def hinge(self, excess: Tensor) -> Tensor:
        """`[excess + margin]₊`, or `log(1 + exp(excess))` where the margin is "soft"."""
        return hinge(excess, self.margin)

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Any:
        # Keras casts to the dtype of the loss. Gradients of half precision can then overflow.
        y_pred = keras.tree.map_structure(at_least_float32, y_pred)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self._per_anchor(y_true, y_pred)[0]

    def measure(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and statistics of the batch, computed from the same distances.

        Args:
            y_true: identities `(b,)` or `(b, 1)`.
            y_pred: predictions, as in the call.
            sample_weight: weights of the anchors `(b,)`; None: 1.

        Returns:
            The loss, and the statistics of the batch as scalars without gradient:
            `active`: fraction of comparisons with a loss above 0, or above ln 2 with the soft
            margin (the negative is nearer than the positive);
            `positive`, `negative`: mean distance of pairs of one identity, of different identities;
            `norm`: mean length of the embeddings. If a batch has no such pairs, the statistic is
            0. With `gather` the statistics describe the batch of all replicas.
        """
        statistics: dict[str, Tensor] = {}

        def call(y_true: Tensor, y_pred: Tensor) -> Tensor:
            per_anchor, *rest = self._per_anchor(y_true, y_pred)
            statistics.update(self._statistics(*rest))
            return per_anchor

        return self.reduced(call, y_true, y_pred, sample_weight), statistics

    def _per_anchor(
        self, y_true: Tensor, y_pred: Tensor
    ) -> tuple[Tensor, Batch, Sequence[Terms], Tensor]:
        """Return the loss of each anchor `(b,)`, the batch, its comparisons and predictions."""
        labels = checked_labels(y_true, y_pred)
        own, start = labels, None
        if self.gather:
            labels, start = replicas.gather(labels)
            y_pred = keras.tree.map_structure(lambda rows: replicas.gather(rows).rows, y_pred)
        batch = self.batch(labels, y_pred)
        terms = self.terms(batch)
        per_anchor = ops.cast(sum(_mean_by_anchor(*some) for some in terms), "float32")
        if start is not None:
            per_anchor = ops.slice(per_anchor, (start,), (ops.shape(own)[0],))
        return per_anchor, batch, terms, y_pred

    def _statistics(
        self, batch: Batch, terms: Sequence[Terms], predictions: Tensor
    ) -> dict[str, Tensor]:
        embeddings = ops.cast(keras.tree.flatten(predictions)[0], "float32")
        satisfied = math.log(2) if self.margin == "soft" else 0.0
        works = [ops.logical_and(valid, values > satisfied) for values, valid in terms]
        compared = sum(_count(valid) for _, valid in terms)
        statistics = {
            "active": sum(map(_count, works)) / ops.maximum(compared, 1),
            "positive": mean_over(batch.positive, batch.distances),
            "negative": mean_over(batch.negative, batch.distances),
            "norm": ops.mean(ops.norm(embeddings, axis=-1)),
        }
        return {name: ops.stop_gradient(value) for name, value in statistics.items()}

    def collapse_value(self, identities: int = 16, instances: int = 4) -> float:
        """Return the loss of a batch with equal embeddings: the margin of a triplet loss.

        Args:
            identities: number of identities of the batch.
            instances: number of images of each identity.
        """
        labels = np.repeat(np.arange(identities), instances)
        return float(ops.mean(self.call(labels, self._all_equal(len(labels)))))

    def _all_equal(self, size: int) -> Any:
        """Return the predictions of a batch with equal embeddings."""
        shapes = {distances.precomputed: (size, size), distances.aligned: (size, 1, 1)}
        return np.zeros(shapes.get(self._pairwise, (size, 1)), "float32")

    def batch(self, labels: Tensor, predictions: Tensor) -> Batch:
        """Return the distances and pairs of labels `(b,)` and predictions `(b, …)`."""
        points = ops.convert_to_tensor(predictions)
        points = distances.unit(points) if self.normalize else points
        pairwise = self._pairwise(points)
        read = mining.entries(pairwise)
        paired = distances.paired(self._pairwise)
        if paired and self.is_sparse and (points.shape[0] or 0) >= _SPARSE_FROM:
            pairwise, read = ops.stop_gradient(pairwise), between_points(points, paired)
        same = labels[:, None] == labels[None, :]
        return Batch(
            pairwise,
            ops.logical_and(same, ops.logical_not(distances.same_index(labels))),
            ops.logical_not(same),
            read,
        )


def pairwise(distance: str | distances.Distance, on_embeddings: bool) -> distances.Distance:
    """Look up a distance by name; reject `precomputed` where embeddings are required."""
    function = distances.get(distance)
    if function is distances.precomputed and on_embeddings:
        fix = "Omit normalize and gather for precomputed distances."
        raise invalid("distance", "a distance of embeddings", distance, fix)
    return function


def hinge(excess: Tensor, margin: float | str) -> Tensor:
    """`[excess + margin]₊`, or `log(1 + exp(excess))` where the margin is "soft"."""
    # The margin may be a tensor.
    soft = isinstance(margin, str)
    return ops.softplus(excess) if soft else ops.relu(excess + margin)


def between_points(points: Tensor, paired: distances.Distance) -> mining.Reader:
    """Return a reader that computes the distances of the points at rows and columns."""

    def read(rows: Tensor | None, columns: Tensor) -> Tensor:
        own = points if rows is None else ops.take(points, rows, axis=0)
        return paired(own, ops.take(points, columns, axis=0))

    return read


def _mean_by_anchor(values: Tensor, valid: Tensor) -> Tensor:
    """Return sums per anchor `(b,)`, scaled so that their mean is the mean of the valid values."""
    # Values of invalid comparisons are finite, and dropped here.
    values = ops.where(valid, values, 0)
    anchors = ops.shape(values)[0]
    scale = ops.cast(anchors, values.dtype) / ops.maximum(_count(valid, values.dtype), 1)
    return ops.sum(ops.reshape(values, (anchors, -1)), axis=-1) * scale


def mean_over(mask: Tensor, values: Tensor) -> Tensor:
    """Return the mean of the values in the mask, 0 if it is empty."""
    return ops.sum(ops.where(mask, values, 0)) / ops.maximum(_count(mask, values.dtype), 1)


def _count(mask: Tensor, dtype: Any = "float32") -> Tensor:
    return ops.sum(ops.cast(mask, dtype))
