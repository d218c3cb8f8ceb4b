"""Metric losses: a formula over (d⁺, d⁻), averaged over the comparisons that exist."""

from typing import Any

import keras
from keras import ops

from keras_reid import distances, mining
from keras_reid.errors import InputError

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class MetricLoss(keras.losses.Loss):
    """`mean over the valid comparisons of formula(d⁺, d⁻)`: distance × miner × formula.

    A subclass states `formula(mined)` and perhaps another `miner`. A comparison is valid if its
    positive (same identity, another image) and its negative exist. Without any the loss is
    exactly 0 and so is its gradient.

    Args:
        margin: distance, in units of `distance`, by which a negative must be farther than a
            positive; None replaces the hinge by softplus, which has no margin.
        distance: name in `keras_reid.distances.DISTANCES`, or a function `(b, …) -> (b, b)`,
            which must be a registered Keras serializable if the loss is to be saved.
        normalize: scale the embeddings to length 1 first.

    `y_true` are identity indices `(b,)` or `(b, 1)`, contiguous because Keras makes them float32;
    `y_pred` embeddings `(b, d)`. The result is `(b,)` in float32, one value per anchor, scaled so
    that its mean over the batch is the mean over the valid comparisons. Mining sees one replica.

    Raises:
        InputError: if the margin is negative, the distance unknown or the sizes do not fit.
    """

    miner: str | mining.Miner = "batch_hard"

    def __init__(
        self,
        margin: float | None = 0.3,
        distance: str | distances.Distance = "euclidean",
        normalize: bool = False,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = "float32",
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if margin is not None and not 0 <= margin < float("inf"):
            raise InputError(
                f"The margin is a distance of at least 0 or None, but {margin} was given: 0.3 is "
                "usual, None is the soft margin."
            )
        self.margin = margin
        self.distance = distance
        self.normalize = normalize
        self._pairwise = distances.get(distance)

    def formula(self, mined: mining.Mined) -> Tensor:
        """The loss of each comparison, of the shape of `mined.valid`."""
        raise NotImplementedError

    def slack(self, excess: Tensor) -> Tensor:
        """`[excess + margin]₊`, or `log(1 + exp(excess))` where the margin is None."""
        return ops.softplus(excess) if self.margin is None else ops.relu(excess + self.margin)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        labels = ops.reshape(y_true, (-1,))
        _check_sizes(labels, y_pred)
        pairwise = self._pairwise(distances.unit(y_pred) if self.normalize else y_pred)
        same = labels[:, None] == labels[None, :]
        positive = ops.logical_and(same, ops.logical_not(distances.same_index(labels)))
        mined = mining.get(self.miner)(pairwise, positive, ops.logical_not(same))
        # The second `where`: what an invalid comparison computed is finite, and dropped here.
        terms = ops.where(mined.valid, self.formula(mined), 0)
        return ops.cast(_per_anchor(terms, mined.valid), "float32")

    def get_config(self) -> dict[str, Any]:
        named = isinstance(self.distance, str)
        return {
            **super().get_config(),
            "dtype": self.dtype,
            "margin": self.margin,
            "distance": (
                self.distance if named else keras.saving.serialize_keras_object(self.distance)
            ),
            "normalize": self.normalize,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "MetricLoss":
        if isinstance(config.get("distance"), dict):
            distance = keras.saving.deserialize_keras_object(config["distance"])
            config = {**config, "distance": distance}
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_reid")
class TripletHardLoss(MetricLoss):
    """`[max d⁺ − min d⁻ + margin]₊` per anchor, "TriHard" (Hermans et al., arXiv:1703.07737)."""

    def formula(self, mined: mining.Mined) -> Tensor:
        return self.slack(mined.positive - mined.negative)


def _per_anchor(terms: Tensor, valid: Tensor) -> Tensor:
    """Sums per anchor `(b,)`, scaled so that their mean is the mean over the valid terms."""
    anchors = ops.shape(terms)[0]
    count = ops.sum(ops.cast(valid, terms.dtype))
    scale = ops.cast(anchors, terms.dtype) / ops.maximum(count, 1)
    return ops.sum(ops.reshape(terms, (anchors, -1)), axis=-1) * scale


def _check_sizes(labels: Tensor, embeddings: Tensor) -> None:
    expected, received = labels.shape[0], embeddings.shape[0]
    if None not in (expected, received) and expected != received:
        raise InputError(
            f"Each embedding has one identity, but {expected} identities and {received} "
            "embeddings were given: give y_true as (b,) class indices and y_pred as (b, d)."
        )
