"""Metric losses over (d⁺, d⁻): one class for each formula or choice of comparisons."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks, distances, mining
from keras_reid.errors import invalid
from keras_reid.losses.base import Batch, MetricLoss, Terms, hinge

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class TripletLoss(MetricLoss):
    """`[d⁺ − d⁻ + margin]₊`, the mean over the triplets (Schroff et al., arXiv:1503.03832).

    Args:
        margin: as in `MetricLoss`; `"soft"` is softplus.
        miner: `"batch_all"`: every valid triplet of the batch, "batch-all" of Hermans et al.
            (arXiv:1703.07737), in O(b³) memory; or another name in `keras_reid.mining.MINERS`.
        nonzero: average only over comparisons with a loss above 0; with the soft margin these are
            all.
        common: distance, normalize, gather, reduction, name and dtype of `MetricLoss`.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> float(TripletLoss(margin=1.0)([0, 0, 1, 1], embeddings))  # (3 + 2 + 5) / 8 triplets
        1.25
    """

    def __init__(
        self,
        margin: float | str = 0.3,
        miner: str | mining.Miner = "batch_all",
        nonzero: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(margin, **common)
        mining.get(miner)
        self.miner = miner
        self.nonzero = nonzero

    @property
    def is_sparse(self) -> bool:
        return mining.get(self.miner) in mining.SPARSE

    def terms(self, batch: Batch) -> list[Terms]:
        (values, valid) = super().terms(batch)[0]
        # Softplus is above 0 everywhere, though in float32 it is 0 where a comparison is easy.
        if self.nonzero and self.margin != "soft":
            valid = ops.logical_and(valid, values > 0)
        return [Terms(values, valid)]


@keras.saving.register_keras_serializable(package="keras_reid")
class TripletHardLoss(MetricLoss):
    """`[max d⁺ − min d⁻ + margin]₊` per anchor, "TriHard" (Hermans et al., arXiv:1703.07737).

    When all embeddings are equal, the loss is exactly the margin, or ln 2 with the soft margin. In
    that case squared distances have no gradient; the default, unsquared ones, have one.

    Args:
        margin: as in `MetricLoss`; `"soft"` is softplus.
        distance, normalize, common: as in `MetricLoss`.
        zero_for_missing: count every anchor, as TensorFlow Addons and triplet-reid do: d⁺ is 0 if
            there is no positive, and d⁻ is d⁺ if there is no negative. Otherwise, anchors
            without a positive or a negative are ignored.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> float(TripletHardLoss(margin=1.0)([0, 0, 1, 1], embeddings))  # (0 + 3 + 5 + 0) / 4
        2.0
    """

    _of_every_anchor = staticmethod(mining.batch_hard_of_every_anchor)

    def __init__(
        self,
        margin: float | str = 0.3,
        distance: str | distances.Distance = "euclidean",
        normalize: bool = False,
        *,
        zero_for_missing: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(margin, distance, normalize, **common)
        self.zero_for_missing = zero_for_missing
        if zero_for_missing:
            self.miner = self._of_every_anchor


@keras.saving.register_keras_serializable(package="keras_reid")
class TripletSemiHardLoss(TripletHardLoss):
    """`[d⁺ − d⁻ + margin]₊` for each positive pair, with the nearest negative beyond it.

    If no negative is farther than the positive, d⁻ is the farthest negative (Schroff et al.,
    FaceNet, CVPR 2015, arXiv:1503.03832, in the form of TensorFlow Addons).

    Args:
        margin: as in `MetricLoss`; `"soft"` is softplus.
        distance, normalize, common: as in `MetricLoss`.
        zero_for_missing: count pairs that have no negative, as TensorFlow Addons does: d⁻ is 0.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> float(TripletSemiHardLoss(margin=1.0)([0, 0, 1, 1], embeddings))  # (0 + 0 + 2 + 0) / 4
        0.5
    """

    miner = "semi_hard"
    _of_every_anchor = staticmethod(mining.semi_hard_of_every_anchor)


@keras.saving.register_keras_serializable(package="keras_reid")
class SoftTripletHardLoss(MetricLoss):
    """`[Σ w⁺ d⁺ − Σ w⁻ d⁻ + margin]₊`, with `w⁺ = softmax(d⁺/t)`, `w⁻ = softmax(−d⁻/t)`.

    Adaptive weights instead of the hardest (Ristani & Tomasi, CVPR 2018, arXiv:1803.10859).

    Args:
        margin: as in `MetricLoss`; `"soft"` is softplus.
        temperature: t, in units of the distance; towards 0 it is `TripletHardLoss`.
        stop_gradient_weights: take the weights as constants; see `keras_reid.mining.batch_soft`.
        common: distance, normalize, gather, reduction, name and dtype of `MetricLoss`.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> loss = SoftTripletHardLoss(margin=1.0, temperature=1.0)  # 2.0 at temperature 0
        >>> round(float(loss([0, 0, 1, 1], embeddings)), 3)
        1.956
    """

    def __init__(
        self,
        margin: float | str = 0.3,
        temperature: float = 1.0,
        stop_gradient_weights: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(margin, **common)
        checks.above(0, "1 is usual; TripletHardLoss is the limit of 0.", temperature=temperature)
        self.temperature = temperature
        self.stop_gradient_weights = stop_gradient_weights
        self.miner = mining.batch_soft(temperature, stop_gradient_weights)


@keras.saving.register_keras_serializable(package="keras_reid")
class MarginSampleMiningLoss(MetricLoss):
    """`[max d⁺ − min d⁻ + margin]₊` over the whole batch, MSML (Xiao et al., arXiv:1710.00478).

    The two pairs need not share an image. Only two distances have a gradient, and one wrong label
    can decide them: start from a trained model or add an `IdentityLoss`.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> float(MarginSampleMiningLoss(margin=1.0)([0, 0, 1, 1], embeddings))  # 5 − 1 + 1
        5.0
    """

    miner = "margin_sample"


@keras.saving.register_keras_serializable(package="keras_reid")
class ImprovedTripletLoss(MetricLoss):
    """`[d⁺ − d⁻ + margin]₊ + weight · [d⁺ − pull]₊` (Cheng et al., CVPR 2016).

    The paper's `max{d⁺ − d⁻, −margin} + weight · max{d⁺, pull}` up to a constant. The
    paper has squared distances. Here, `pull` and `margin` are in units of `distance`.

    Args:
        margin: as in `MetricLoss`; `"soft"` is softplus.
        pull: distance up to which a positive adds nothing to the second part.
        weight: weight of the second part.
        miner: a name in `keras_reid.mining.MINERS`, such as `"batch_hard"` or `"batch_all"`.
        common: distance, normalize, gather, reduction, name and dtype of `MetricLoss`; unit
            vectors and squared distances by default.

    Example:
        >>> import numpy as np
        >>> embeddings = np.array([[0.0], [3.0], [4.0], [9.0]])
        >>> units = {"distance": "euclidean", "normalize": False}
        >>> loss = ImprovedTripletLoss(margin=1.0, pull=1.0, weight=0.5, **units)
        >>> float(loss([0, 0, 1, 1], embeddings))  # 2 + 0.5 · (2 + 2 + 4 + 4) / 4
        3.5
    """

    def __init__(
        self,
        margin: float | str = 1.0,
        pull: float = 0.01,
        weight: float = 0.002,
        miner: str | mining.Miner = "batch_hard",
        distance: str | distances.Distance = "squared_euclidean",
        normalize: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(margin, distance, normalize, **common)
        check_absolute("pull", pull, weight)
        mining.get(miner)
        self.pull = pull
        self.weight = weight
        self.miner = miner

    def formula(self, mined: mining.Mined) -> Tensor:
        relative = self.hinge(mined.positive - mined.negative)
        return relative + self.weight * ops.relu(mined.positive - self.pull)


def triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float | str = 0.3,
    distance: str | distances.Distance = "euclidean",
    normalize: bool = False,
) -> Tensor:
    """`[d(anchor, positive) − d(anchor, negative) + margin]₊` of explicit triplets.

    Args:
        anchor: embeddings `(b, d)`; row i of the three arguments is a triplet.
        positive: embeddings `(b, d)` of the identities of the anchors.
        negative: embeddings `(b, d)` of other identities.
        margin: in units of `distance`; `"soft"` is softplus.
        distance: a name in `keras_reid.distances.DISTANCES` but `"precomputed"`.
        normalize: scale the embeddings to length 1 first.

    Returns:
        `(b,)` in float32.

    Raises:
        InputError: if the margin is negative or the distance cannot be taken row by row.

    Example:
        >>> import numpy as np
        >>> anchor, positive, negative = np.array([[[0.0, 0.0]], [[3.0, 4.0]], [[0.0, 2.0]]])
        >>> print(np.array(triplet(anchor, positive, negative, margin=1.0)))  # 5 − 2 + 1
        [4.]
    """
    checks.margin(margin=margin)
    paired = distances.paired(distances.get(distance))
    if paired is None:
        raise invalid("distance", "euclidean, squared_euclidean, cosine or aligned", distance)
    if normalize:
        anchor, positive, negative = map(distances.unit, (anchor, positive, negative))
    excess = paired(anchor, positive) - paired(anchor, negative)
    return ops.cast(hinge(excess, margin), "float32")


def check_absolute(name: str, bound: float, weight: float) -> None:
    """Raise `InputError` for a negative distance or a negative weight."""
    factor = "weight" if name == "pull" else f"{name}_weight"
    checks.at_least(0, "", **{name: bound, factor: weight})
