"""Triplet loss of local features with aligned stripes."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks, distances
from keras_reid.errors import Shown, invalid
from keras_reid.losses.base import Batch, MetricLoss, between_points

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class AlignedTripletLoss(MetricLoss):
    """`[S(a, p) − S(a, n) + margin]₊`, S the `aligned` distance of local features.

    For each anchor, p is the farthest positive and n the nearest negative by the distance of the
    global features, which are faster to compare (Zhang et al., AlignedReID, 2017,
    arXiv:1711.08184). With `by="features"`, only the 2b chosen pairs are aligned. No gradient
    flows to the global features: add a `TripletHardLoss` and an identity loss of the global
    features, as in the recipe `aligned`.

    The predictions are the pair of outputs `(features (b, d), local (b, s, c))`: list the loss
    under `"features"` in `compile`. With `by="local"` they are only `local`: list it under
    `"local"`.

    Args:
        margin: margin in units of S; S is below 2s − 1. `"soft"` is softplus.
        by: distances that select the pairs: those of `"features"`, or the aligned distances of
            `"local"`.
        distance: distance of the global features. Local features always use `aligned`.
        normalize: scale features and stripes to length 1 first.
        common: gather, label, reduction, name and dtype of `MetricLoss`.

    The statistics of `MetricLoss.measure` describe the distances that select.

    Raises:
        InputError: if `by` is unknown, or the predictions are not this pair.

    Example:
        >>> import numpy as np
        >>> features = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> local = np.array([0.0, 50.0, 0.0, 50.0]).reshape(4, 1, 1)  # one stripe, 0 or 1 apart.
        >>> losses = AlignedTripletLoss(margin=0.3, reduction=None)([0, 0, 1, 1], (features, local))
        >>> print(np.round(losses, 2))  # S of the negatives: 0, 1, 1, 0
        [1.3 0.3 0.3 1.3]
    """

    outputs: tuple[str, ...] = ("features", "local")

    def __init__(
        self,
        margin: float | str = 0.3,
        by: str = "features",
        distance: str | distances.Distance = "euclidean",
        normalize: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(margin, distance, normalize, **common)
        checks.one_of(("features", "local"), by=by)
        self.by = by
        if by == "local":
            self._pairwise = distances.aligned
            self.outputs = ()

    def batch(self, labels: Tensor, predictions: Any) -> Batch:
        features, local = self._pair(predictions)
        chosen = super().batch(labels, features)  # which a miner does not differentiate
        stripes = distances.unit(local) if self.normalize else local
        return chosen._replace(read=between_points(stripes, distances.aligned_paired))

    def _pair(self, predictions: Any) -> tuple[Tensor, Tensor]:
        """Return the features that select and the local features that are trained."""
        outputs = keras.tree.flatten(predictions)
        ranks = [len(output.shape) for output in outputs]
        if ranks == [2, 3]:
            return (outputs[0] if self.by == "features" else outputs[1]), outputs[1]
        if ranks == [3] and self.by == "local":
            return outputs[0], outputs[0]
        raise invalid(
            "y_pred",
            "the outputs features (b, d) and local (b, s, c)",
            Shown(f"shapes {[tuple(output.shape) for output in outputs]}"),
            'List the loss under "features", or under "local" with by="local".',
        )

    def _all_equal(self, size: int) -> tuple[Tensor, Tensor]:
        return ops.zeros((size, 1)), ops.zeros((size, 1, 1))
