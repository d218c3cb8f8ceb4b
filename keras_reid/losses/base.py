"""What all metric losses have in common: distances, pairs, and the mean over comparisons."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_reid import checks, distances, mining, replicas
from keras_reid.distances.points import at_least_float32
from keras_reid.errors import InputError
from keras_reid.losses.labels import LabeledLoss, checked_labels

Tensor = Any

# From this batch size on, single distances are computed anew from the points that a miner chose.
# Their gradient touches only these rows; that of a whole matrix takes a product of b² d steps,
# which is the faster one for small batches. Measured in benchmarks/losses.py.
_SPARSE_FROM = 512

# What `MetricLoss.measure` says of a batch.
STATISTICS = ("active", "positive", "negative", "norm")


class Batch(NamedTuple):
    """The distances of a batch to itself `(b, b)`, and which pairs may be compared.

    `read(rows, columns)` gives single distances, see `keras_reid.mining`.
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

    A subclass states another `miner` or `formula(mined)`, or all its `terms(batch)`. A comparison
    is valid if its positive (same identity, another image) and its negative exist. Without any
    the loss is exactly 0 and so is its gradient.

    Args:
        margin: distance, in units of `distance`, by which a negative must be farther than a
            positive; `"soft"` replaces the hinge by softplus, which has no margin.
        distance: name in `keras_reid.distances.DISTANCES`, or a function `(b, …) -> (b, b)`,
            which must be a registered Keras serializable if the loss is to be saved. With
            `"precomputed"` the predictions are themselves the distances `(b, b)` of the batch.
        normalize: scale the embeddings to length 1 first.
        gather: compare over the global batch of all replicas of a distributed training, so that
            it takes the step of one replica with the joint batch; otherwise each replica
            compares what it sees.
        common: label, reduction, name and dtype of `ReidLoss`.

    `y_true` are identities `(b,)` or `(b, 1)`, any integers; `y_pred` embeddings `(b, d)`. The
    result is `(b,)` in float32, one value per anchor, scaled so that its mean over the batch is the
    mean over the valid comparisons.

    Raises:
        InputError: if the margin is negative, the distance unknown, the labels have several
            columns (one-hot) or the sizes do not fit.
    """

    miner: str | mining.Miner = "batch_hard"

    def __init__(
        self,
        margin: float | str = 0.3,
        distance: str | distances.Distance = "euclidean",
        normalize: bool = False,
        gather: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        check_margin("margin", margin)
        self.margin = margin
        self.distance = distance
        self.normalize = normalize
        self.gather = gather
        self._pairwise = pairwise("compared", distance, normalize or gather)

    def formula(self, mined: mining.Mined) -> Tensor:
        """The loss of each comparison, of the shape of `mined.valid`."""
        return self.hinge(mined.positive - mined.negative)

    def terms(self, batch: Batch) -> Sequence[Terms]:
        """What is averaged; the loss is the sum of these means."""
        mined = self.mine(batch)
        return [Terms(self.formula(mined), mined.valid)]

    def mine(self, batch: Batch) -> mining.Mined:
        """The comparisons of this loss's miner."""
        return mining.get(self.miner)(batch.distances, batch.positive, batch.negative, batch.read)

    @property
    def is_sparse(self) -> bool:
        """Whether all that is differentiated are single distances that the miner chose.

        A subclass with `terms` or `mine` of its own says so itself.
        """
        kind = type(self)
        inherited = kind.terms is MetricLoss.terms and kind.mine is MetricLoss.mine
        return inherited and mining.get(self.miner) in mining.SPARSE

    def hinge(self, excess: Tensor) -> Tensor:
        """`[excess + margin]₊`, or `log(1 + exp(excess))` where the margin is "soft"."""
        return hinge(excess, self.margin)

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Any:
        # Keras casts to the loss's dtype, by which gradients of half precision can overflow.
        y_pred = keras.tree.map_structure(at_least_float32, y_pred)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self._compared(y_true, y_pred)[0]

    def measure(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What calling the loss returns, and what it saw of the batch, from the same distances.

        Args:
            y_true, y_pred, sample_weight: as of the call.

        Returns:
            The loss, and the statistics of the batch as scalars without gradient:
            `active`: fraction of the comparisons that the loss still works on, those above 0, or
            above ln 2 with the soft margin (the negative is nearer than the positive);
            `positive`, `negative`: mean distance of the pairs of one identity and of two;
            `norm`: mean length of the embeddings. What does not exist is 0. With `gather` they are
            of the global batch.
        """
        statistics: dict[str, Tensor] = {}

        def call(y_true: Tensor, y_pred: Tensor) -> Tensor:
            per_anchor, *seen = self._compared(y_true, y_pred)
            statistics.update(self._statistics(*seen))
            return per_anchor

        return self.reduced(call, y_true, y_pred, sample_weight), statistics

    def _compared(
        self, y_true: Tensor, y_pred: Tensor
    ) -> tuple[Tensor, Batch, Sequence[Terms], Tensor]:
        """The loss of each anchor `(b,)`, and the batch, comparisons and predictions it is of."""
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
        """The loss of a batch whose embeddings are all equal: the margin of a triplet loss."""
        labels = np.repeat(np.arange(identities), instances)
        return float(ops.mean(self.call(labels, self._all_equal(len(labels)))))

    def _all_equal(self, size: int) -> Any:
        """What the loss takes, of a batch whose embeddings are all equal."""
        shapes = {distances.precomputed: (size, size), distances.aligned: (size, 1, 1)}
        return np.zeros(shapes.get(self._pairwise, (size, 1)), "float32")

    def batch(self, labels: Tensor, predictions: Tensor) -> Batch:
        """The distances and pairs of labels `(b,)` and predictions `(b, …)`."""
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

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "margin": self.margin,
            "distance": saved(self.distance),
            "normalize": self.normalize,
            "gather": self.gather,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MetricLoss":
        return cls(**restored(config, "distance", "miner"))


def saved(choice: Any) -> Any:
    """A name as it is, a function as Keras saves it."""
    return choice if isinstance(choice, str) else keras.saving.serialize_keras_object(choice)


def restored(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """The configuration with the functions among these names, which `saved` saved, made again."""
    functions = {
        name: keras.saving.deserialize_keras_object(config[name])
        for name in names
        if isinstance(config.get(name), dict)
    }
    return {**config, **functions}


def pairwise(
    action: str, distance: str | distances.Distance, on_embeddings: bool
) -> distances.Distance:
    """The function of that name, unless it is none of embeddings where it must be one."""
    chosen = distances.get(distance)
    if chosen is distances.precomputed and on_embeddings:
        raise InputError(
            f"Precomputed distances are {action} as they are, but normalize or gather is set: "
            "these work on embeddings."
        )
    return chosen


def hinge(excess: Tensor, margin: float | str) -> Tensor:
    """`[excess + margin]₊`, or `log(1 + exp(excess))` where the margin is "soft"."""
    # The margin may be a tensor.
    soft = isinstance(margin, str)
    return ops.softplus(excess) if soft else ops.relu(excess + margin)


def between_points(points: Tensor, paired: distances.Distance) -> mining.Reader:
    """Reads distances by computing them, from the points at these rows and columns."""

    def read(rows: Tensor | None, columns: Tensor) -> Tensor:
        own = points if rows is None else ops.take(points, rows, axis=0)
        return paired(own, ops.take(points, columns, axis=0))

    return read


def _mean_by_anchor(values: Tensor, valid: Tensor) -> Tensor:
    """Sums per anchor `(b,)`, scaled so that their mean is the mean over the valid values."""
    # The `where`: what an invalid comparison computed is finite, and dropped here.
    values = ops.where(valid, values, 0)
    anchors = ops.shape(values)[0]
    scale = ops.cast(anchors, values.dtype) / ops.maximum(_count(valid, values.dtype), 1)
    return ops.sum(ops.reshape(values, (anchors, -1)), axis=-1) * scale


def mean_over(mask: Tensor, values: Tensor) -> Tensor:
    """The mean of the values in the mask, 0 if it is empty."""
    return ops.sum(ops.where(mask, values, 0)) / ops.maximum(_count(mask, values.dtype), 1)


def _count(mask: Tensor, dtype: Any = "float32") -> Tensor:
    return ops.sum(ops.cast(mask, dtype))


def check_margin(name: str, margin: float | str) -> None:
    """Raise `InputError` for a margin that is neither a distance nor "soft"."""
    if margin is None or (isinstance(margin, str) and margin != "soft"):
        raise InputError(f'`{name}` must be a number of at least 0 or "soft", got {margin!r}.')
    if margin != "soft":
        checks.at_least(0, '0.3 is usual, "soft" is softplus', **{name: margin})
