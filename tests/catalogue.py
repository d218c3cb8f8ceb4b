"""Catalog of all losses, distances, miners, layers, models and re-rankers with their oracles.

`test_conformance.py` runs every property over everything listed here, so that adding a line adds
all its tests. The public name is the part before the first hyphen.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import oracle
import oracle_alignment
import oracle_classifiers
import oracle_distillation
import oracle_enhance
import oracle_pairs
import oracle_parts
import oracle_reranking
import pytest

from keras_reid import distances, layers, losses, mining, reranking
from keras_reid.models import heads

# Seeds of random batches.
BATCHES = pytest.mark.parametrize(
    "seeds",
    [range(12), pytest.param(range(12, 200), marks=pytest.mark.nightly)],
    ids=["12 batches", "188 batches"],
)


def costly(names: Iterable[str]) -> list[Any]:
    """Names for a test that compiles or saves: one setting per class, the others nightly.

    Further settings of a class have a hyphen in their names.
    """
    return [
        pytest.param(name, marks=pytest.mark.nightly) if "-" in name else name for name in names
    ]


@dataclass(frozen=True)
class LossCase:
    """A loss, how it is made, and its oracle `(labels, predictions) -> float`."""

    build: Callable[..., keras.losses.Loss]
    arguments: dict[str, Any]
    truth: Callable[..., float]
    # Embeddings that are compared; otherwise scores of a classifier, or distances.
    metric: bool = True
    # The oracle's argument for the points with constant weights.
    frozen: bool = False
    # A positive without negatives, or a lone image, has a loss above 0.
    one_sided: bool = False
    # Whether, on embeddings as they are, the loss grows and turns with them.
    homogeneous: bool = True
    # Converts any numbers to valid predictions.
    prepare: Callable[[np.ndarray], np.ndarray] = np.asarray

    def loss(self, **more: Any) -> keras.losses.Loss:
        return self.build(**self.arguments, **more)

    def value(self, labels: np.ndarray, predictions: np.ndarray) -> float:
        return self.truth(labels, predictions, **self.arguments)

    def compared(self, predictions: np.ndarray) -> np.ndarray:
        """The distances of a batch `(b, b)` among which the loss chooses."""
        if self.arguments.get("by") == "local":
            local = oracle_alignment.features_and_stripes(predictions.astype("float64"))[1]
            return oracle_alignment.aligned(local, local)
        loss = self.loss()
        return oracle.distances(predictions, loss.distance, loss.normalize)

    def rounding(self, predictions: np.ndarray) -> float:
        """Four float32 roundings of the largest number that the loss subtracts from another."""
        if self.metric:
            predictions = self.compared(predictions)
        return 2.4e-7 * float(np.abs(predictions).max())

    def around(self, labels: np.ndarray, predictions: np.ndarray) -> Callable[[np.ndarray], float]:
        """Return the function of predictions with the gradient of the loss at these."""
        constant = {"constant": predictions} if self.frozen else {}
        return partial(self.truth, labels, **self.arguments, **constant)


def _case(
    build: type[keras.losses.Loss], truth: Callable[..., float], **traits: Any
) -> Callable[..., LossCase]:
    return lambda **arguments: LossCase(build, arguments, truth, **traits)


SQUARED = {"distance": "squared_euclidean"}
SPHERE = {"normalize": True}
PLAIN = {"distance": "euclidean", "normalize": False}


def _metric_losses() -> dict[str, LossCase]:
    hard = _case(losses.TripletHardLoss, oracle.triplet_hard)
    hard_all = _case(losses.TripletHardLoss, oracle.triplet_hard_of_every_anchor, one_sided=True)
    every = _case(losses.TripletLoss, oracle.triplets)
    semi = _case(losses.TripletSemiHardLoss, oracle.triplet_semi_hard)
    semi_all = _case(
        losses.TripletSemiHardLoss, oracle.triplet_semi_hard_of_every_anchor, one_sided=True
    )
    soft = _case(losses.SoftTripletHardLoss, oracle.soft_triplet_hard, frozen=True)
    soft_full = _case(losses.SoftTripletHardLoss, oracle.soft_triplet_hard)
    sample = _case(losses.MarginSampleMiningLoss, oracle.margin_sample_mining)
    improved = _case(losses.ImprovedTripletLoss, oracle.improved_triplet)
    four = _case(losses.QuadrupletLoss, oracle.quadruplet)
    four_adaptive = _case(losses.QuadrupletLoss, oracle.quadruplet, frozen=True)
    union = _case(losses.ImprovedQuadrupletLoss, oracle.improved_quadruplet)
    pairs = _case(losses.ContrastiveLoss, oracle.contrastive, one_sided=True)
    given = _case(losses.ContrastiveLoss, oracle.contrastive, metric=False, prepare=as_given)
    lifted = _case(losses.LiftedStructureLoss, oracle.lifted_structure)
    circle = _case(losses.CircleLoss, oracle.circle, frozen=True)
    return {
        "TripletHardLoss": hard(),
        "TripletHardLoss-margin-1": hard(margin=1.0),
        "TripletHardLoss-soft-margin": hard(margin="soft"),
        "TripletHardLoss-squared": hard(**SQUARED, margin=0.2),
        "TripletHardLoss-cosine": hard(distance="cosine", margin=0.1),
        "TripletHardLoss-on-the-sphere": hard(**SPHERE, margin=0.6),
        "TripletHardLoss-every-anchor": hard_all(zero_for_missing=True),
        "TripletLoss": every(),
        "TripletLoss-nonzero": every(nonzero=True),
        "TripletLoss-soft-margin": every(margin="soft"),
        "TripletLoss-cosine": every(distance="cosine"),
        "TripletLoss-hard": every(miner="batch_hard", margin=1.0),
        "TripletLoss-soft-hard": LossCase(
            losses.TripletLoss,
            {"miner": "batch_soft"},
            lambda labels, x, miner, **more: oracle.soft_triplet_hard(labels, x, **more),
            frozen=True,
        ),
        "TripletSemiHardLoss": semi(),
        "TripletSemiHardLoss-soft-margin": semi(margin="soft"),
        "TripletSemiHardLoss-squared": semi(**SQUARED, **SPHERE, margin=0.2),
        "TripletSemiHardLoss-every-anchor": semi_all(zero_for_missing=True),
        "SoftTripletHardLoss": soft(),
        "SoftTripletHardLoss-soft-margin": soft(margin="soft"),
        "SoftTripletHardLoss-temperature": soft(temperature=0.2, **SPHERE),
        "SoftTripletHardLoss-whole-gradient": soft_full(stop_gradient_weights=False),
        "MarginSampleMiningLoss": sample(),
        "MarginSampleMiningLoss-soft-margin": sample(margin="soft", **SPHERE),
        "MarginSampleMiningLoss-cosine": sample(distance="cosine"),
        "ImprovedTripletLoss": improved(),
        "ImprovedTripletLoss-all": improved(miner="batch_all", pull=0.5, weight=0.25),
        "ImprovedTripletLoss-soft-margin": improved(margin="soft", **PLAIN, pull=1.0, weight=1.0),
        "QuadrupletLoss": four(),
        "QuadrupletLoss-euclidean": four(**PLAIN, margin=0.6, margin2=0.3),
        "QuadrupletLoss-soft-margin": four(margin="soft", margin2="soft", **PLAIN),
        "QuadrupletLoss-all": four(miner="batch_all"),
        "QuadrupletLoss-adaptive": four_adaptive(adaptive=True),
        "QuadrupletLoss-adaptive-all": four_adaptive(adaptive=True, miner="batch_all", **PLAIN),
        "ImprovedQuadrupletLoss": union(),
        "ImprovedQuadrupletLoss-euclidean": union(
            **PLAIN, pull=0.5, weight=0.25, push=2.0, push_weight=0.5
        ),
        "LiftedStructureLoss": lifted(),
        "LiftedStructureLoss-squared": lifted(margin=1.0, **SQUARED, **SPHERE),
        "CircleLoss": circle(),
        "CircleLoss-euclidean": circle(margin=0.4, scale=8.0, distance="euclidean", **SPHERE),
        "ContrastiveLoss": pairs(),
        "ContrastiveLoss-all": pairs(reduce_pairs="all", normalize=False, margin=2.0),
        "ContrastiveLoss-nonzero": pairs(reduce_pairs="nonzero"),
        "ContrastiveLoss-linear": pairs(form="linear", normalize=False),
        "ContrastiveLoss-squared-margin": pairs(form="squared_margin"),
        "ContrastiveLoss-cosine": pairs(distance="cosine", normalize=False),
        "ContrastiveLoss-given": given(pairs="given"),
        "ContrastiveLoss-given-nonzero": given(pairs="given", reduce_pairs="nonzero"),
    }


@keras.saving.register_keras_serializable(package="catalogue")
class AlignedTripletLossOfRows(losses.AlignedTripletLoss):
    """The loss of `oracle_alignment.features_and_stripes` of a matrix: of one tensor, not two."""

    def batch(self, labels: Any, predictions: Any) -> Any:
        return super().batch(labels, self.pair_of(predictions))

    def pair_of(self, rows: Any) -> tuple[Any, Any]:
        rows = keras.ops.cast(rows, "float32")
        turned = keras.ops.flip(rows, axis=1)
        return rows, keras.ops.stack([rows, rows + turned, turned / 2], axis=1)


def _aligned_losses() -> dict[str, LossCase]:
    aligned = _case(
        AlignedTripletLossOfRows,
        oracle_alignment.aligned_triplet,
        homogeneous=False,
        prepare=within_three,
    )
    return {
        "AlignedTripletLoss": aligned(),
        "AlignedTripletLoss-margin-2": aligned(margin=2.0),
        "AlignedTripletLoss-soft-margin": aligned(margin="soft"),
        "AlignedTripletLoss-by-local": aligned(by="local", margin=1.0),
        "AlignedTripletLoss-by-squared": aligned(**SQUARED),
        "AlignedTripletLoss-on-the-sphere": aligned(**SPHERE),
    }


@keras.saving.register_keras_serializable(package="catalogue")
class VisibleIdentityLossOfRows(losses.VisibleIdentityLoss):
    """The loss of `parts_of_rows`: of one tensor, not two."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        rows = keras.ops.cast(y_pred, "float32")
        parts = keras.ops.stack([rows, 2 * keras.ops.flip(rows, axis=1), rows / 2], axis=1)
        seen = keras.ops.ones_like(rows[:, :1]) * keras.ops.convert_to_tensor([SEEN], "float32")
        return super().call(y_true, (parts, seen))


SEEN = (0.5, 0.3, 0.0)


def visible_identity_of_rows(labels: np.ndarray, rows: np.ndarray, **arguments: Any) -> float:
    rows = np.asarray(rows, "float64")
    parts = np.stack([rows, 2 * rows[:, ::-1], rows / 2], axis=1)
    return oracle_enhance.visible_identity(labels, parts, [SEEN] * len(rows), **arguments)


@keras.saving.register_keras_serializable(package="catalogue")
class AttributeLossOfIdentities(losses.AttributeLoss):
    """The loss of attributes that follow from the number of an identity, see `worn`."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        table = keras.ops.convert_to_tensor(worn(np.arange(64)), "float32")
        return super().call(keras.ops.take(table, keras.ops.cast(y_true, "int32"), axis=0), y_pred)


def worn(identities: np.ndarray) -> np.ndarray:
    """Three binary attributes, the third unknown to every fourth, and a group of three."""
    columns = [(identities >> m) & 1 for m in range(3)]
    columns[2] = np.where(identities % 4 == 3, -1, columns[2])
    return np.stack([*columns, *(identities % 4 == i for i in range(3))], axis=1).astype(float)


def attributes_of_identities(labels: np.ndarray, rows: np.ndarray, **arguments: Any) -> float:
    return oracle_enhance.attribute_loss(worn(np.asarray(labels)), rows, **arguments)


def within_three(predictions: np.ndarray) -> np.ndarray:
    """Return rows of at most length 3; beyond it, distances of stripes are equal."""
    longest = float(np.linalg.norm(predictions, axis=1).max())
    return (predictions * min(1.0, 3 / max(longest, 1e-9))).astype(predictions.dtype)


def as_given(predictions: np.ndarray) -> np.ndarray:
    """Distances of pairs: one number at least 0 for each row."""
    return np.abs(predictions[:, :1])


def as_cosines(predictions: np.ndarray) -> np.ndarray:
    return predictions / np.linalg.norm(predictions, axis=1, keepdims=True)


def _classifier_losses() -> dict[str, LossCase]:
    identity = _case(losses.IdentityLoss, oracle.smoothed_cross_entropy, metric=False)
    visible = _case(VisibleIdentityLossOfRows, visible_identity_of_rows, metric=False)
    attributes = _case(AttributeLossOfIdentities, attributes_of_identities, metric=False)
    margin = _case(
        losses.MarginSoftmaxLoss,
        oracle_classifiers.margin_softmax,
        metric=False,
        prepare=as_cosines,
    )
    return {
        "IdentityLoss": identity(),
        "IdentityLoss-not-smoothed": identity(label_smoothing=0.0),
        "MarginSoftmaxLoss": margin(),
        "MarginSoftmaxLoss-cosface": margin(kind="cosface", scale=16.0),
        "MarginSoftmaxLoss-sphere": margin(kind="sphereface", scale=8.0, label_smoothing=0.1),
        "VisibleIdentityLoss": visible(),
        "VisibleIdentityLoss-not-smoothed": visible(label_smoothing=0.0),
        "AttributeLoss": attributes(rates=[0.2, 0.5, 0.9, 0, 0, 0], exclusive=[[3, 4, 5]]),
        "AttributeLoss-binary": attributes(rates=[0.1, 0.2, 0.3, 0.4, 0.5, 1.0]),
        "CenterLoss": LossCase(
            losses.CenterLoss, {}, oracle_classifiers.center, metric=False, prepare=np.abs
        ),
    }


LOSSES: dict[str, LossCase] = {
    **_metric_losses(),
    **_aligned_losses(),
    **_classifier_losses(),
}
ONE_OF_EACH = [name for name in LOSSES if "-" not in name]


@dataclass(frozen=True)
class DistillationCase:
    """An distillation loss, how it is made, and its oracle `(teacher, student) -> (b,)`."""

    build: Callable[..., losses.DistillationLoss]
    arguments: dict[str, Any]
    truth: Callable[..., np.ndarray]
    # `(teacher, student, direction)` -> what float32 may do to the losses `(b,)` and to the slope.
    tolerance: Callable[..., tuple[np.ndarray, float]]
    # Images of the smallest batch.
    fewest: int = 1
    # Powers of ten between which the sizes of outputs are drawn.
    sizes: tuple[float, float] = (-2, 2)

    def loss(self, **more: Any) -> losses.DistillationLoss:
        return self.build(**self.arguments, **more)

    @property
    def relates(self) -> bool:
        """True if the loss compares the images of a batch with each other."""
        alone = (losses.LogitDistillationLoss, losses.CosineDistillationLoss)
        return self.build not in alone

    def rows(self, teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
        return self.truth(teacher, student, **self.arguments)

    def value(self, teacher: np.ndarray, student: np.ndarray) -> float:
        return float(self.rows(teacher, student).mean())

    def rounding(
        self, teacher: np.ndarray, student: np.ndarray, direction: np.ndarray
    ) -> tuple[np.ndarray, float]:
        return self.tolerance(teacher, student, direction, **self.arguments)


def _distillation_losses() -> dict[str, DistillationCase]:
    def logits(**arguments: Any) -> DistillationCase:
        truth, tolerance = oracle_distillation.logits, oracle_distillation.logits_rounding
        return DistillationCase(losses.LogitDistillationLoss, arguments, truth, tolerance)

    def cosine() -> DistillationCase:
        truth, tolerance = oracle_distillation.cosine, oracle_distillation.cosine_rounding
        return DistillationCase(losses.CosineDistillationLoss, {}, truth, tolerance)

    def distance(**arguments: Any) -> DistillationCase:
        truth, tolerance = oracle_distillation.distances, oracle_distillation.distances_rounding
        return DistillationCase(losses.DistanceDistillationLoss, arguments, truth, tolerance)

    def ranks(**arguments: Any) -> DistillationCase:
        truth, tolerance = oracle_distillation.ranks, oracle_distillation.ranks_rounding
        fewest = arguments.get("list_length", 4) + 1
        # Cubes of large distances would leave no order in doubt.
        sizes = (-2, 2) if arguments.get("normalize", True) else (-1, 0)
        return DistillationCase(
            losses.RankDistillationLoss, arguments, truth, tolerance, fewest, sizes
        )

    return {
        "LogitDistillationLoss": logits(),
        "LogitDistillationLoss-temperature": logits(temperature=4.0),
        "CosineDistillationLoss": cosine(),
        "DistanceDistillationLoss": distance(),
        "DistanceDistillationLoss-squared": distance(**SQUARED),
        "DistanceDistillationLoss-cosine": distance(distance="cosine"),
        "DistanceDistillationLoss-on-the-sphere": distance(**SPHERE),
        "RankDistillationLoss": ranks(),
        "RankDistillationLoss-two": ranks(list_length=2),
        "RankDistillationLoss-six": ranks(list_length=6),
        "RankDistillationLoss-hard": ranks(mode="hard"),
        "RankDistillationLoss-hard-six": ranks(mode="hard", list_length=6),
        "RankDistillationLoss-tusimple": ranks(alpha=12.25, beta=4.0),
        "RankDistillationLoss-not-normalized": ranks(normalize=False),
        "RankDistillationLoss-linear": ranks(beta=1.0),
    }


DISTILLATION_LOSSES: dict[str, DistillationCase] = _distillation_losses()
ONE_OF_EACH_DISTILLATION = [name for name in DISTILLATION_LOSSES if "-" not in name]

DISTANCES: dict[str, tuple[distances.Distance, Callable[..., np.ndarray]]] = {
    "euclidean": (distances.euclidean, partial(oracle.matrix, distance="euclidean")),
    "squared_euclidean": (
        distances.squared_euclidean,
        partial(oracle.matrix, distance="squared_euclidean"),
    ),
    "cosine": (distances.cosine, partial(oracle.matrix, distance="cosine")),
}
# Not distances between points: the matrix itself, and one between stripes (test_alignment.py).
OTHER_DISTANCES = {"precomputed", "aligned"}

MINERS: dict[str, tuple[mining.Miner, Callable[..., list[tuple[float, float]]]]] = {
    name: (mining.MINERS[name], oracle.MINERS[name]) for name in oracle.MINERS
}


@dataclass(frozen=True)
class LayerCase:
    """A layer, how it is made, and its oracle `*inputs, *weights -> y` in inference."""

    build: Callable[..., keras.layers.Layer]
    arguments: dict[str, Any]
    truth: Callable[..., Any]
    # From maps (b, h, w, d) to the arguments of the layer.
    inputs: Callable[[np.ndarray], list[Any]] = lambda x: [x]
    weights: int = 0  # number of weights that are arguments of the oracle
    halves: bool = True  # its result is of the compute type; otherwise always float32
    data: int = 0  # number of inputs that are data and get no gradient

    def layer(self) -> keras.layers.Layer:
        return self.build(**self.arguments)


def _points(x: np.ndarray) -> list[np.ndarray]:
    return [x.mean((1, 2))]


def _refined_parts(**arguments: Any) -> layers.PartPooling:
    """Return the layer for the maps of the tests, with an assignment that is not uniform."""
    layer = layers.PartPooling(**arguments)
    layer.build((None, 5, 4, 6))
    layer.refined.assign(1.0)
    layer.kernel.assign(np.linspace(-1, 1, 6 * layer.parts).reshape(6, layer.parts))
    return layer


def _stripes(x: np.ndarray) -> list[np.ndarray]:
    return [x.mean(2)]


def _two_sets(x: np.ndarray) -> list[np.ndarray]:
    return [x.mean((1, 2)), x[::-1].mean((1, 2))]


def _body_points(x: np.ndarray) -> list[np.ndarray]:
    """Points (b, 5, 3) in the image, beyond it, and without confidence."""
    points = 0.5 + 0.2 * x[:, :, 0, :3] / np.abs(x[:, :, 0, :3]).max() * 3
    points[..., 2] = np.clip(points[..., 2], 0, 1)
    points[0, :, 2] = 0
    points[1, 2, 2] = 0
    return [points.astype("float32")]


def _heat(x: np.ndarray) -> list[list[np.ndarray]]:
    (points,) = _body_points(x)
    heat = oracle_enhance.heatmaps(points, (5, 4)).astype("float32")
    return [[x, heat, points[..., 2]]]


def _seen_parts(x: np.ndarray) -> list[list[np.ndarray]]:
    seen = np.maximum(x.mean((2, 3)), 0)
    return [[x.mean((1, 2)), x.mean(2), seen.astype("float32")]]


def _clip(x: np.ndarray) -> list[list[np.ndarray]]:
    """Return frames (b, 5, 6) and a mask without some frames, and without all of the last clip."""
    mask = np.ones((3, 5), "float32")
    mask[0, 3:], mask[1, [0, 2]], mask[2] = 0, 0, 0
    return [[x.mean(2), mask]]


def _clip_of_maps(x: np.ndarray) -> list[list[np.ndarray]]:
    ((features, mask),) = _clip(x)
    return [[features, mask, x[..., None]]]


def _shares(x: np.ndarray) -> list[np.ndarray]:
    return [(1 / (1 + np.exp(-np.clip(x.mean((1, 2)), -20, 20)))).astype("float32")]


GROUPS = ((0, 1), (2,), (3, 4))

LAYERS: dict[str, LayerCase] = {
    "AverageMaxPooling2D": LayerCase(layers.AverageMaxPooling2D, {}, oracle_enhance.average_max),
    "KeypointHeatmaps": LayerCase(
        layers.KeypointHeatmaps,
        {"size": (5, 4)},
        partial(oracle_enhance.heatmaps, size=(5, 4)),
        inputs=_body_points,
        halves=False,
        data=1,
    ),
    "KeypointHeatmaps-sigma": LayerCase(
        layers.KeypointHeatmaps,
        {"size": (2, 3), "sigma": 0.5},
        partial(oracle_enhance.heatmaps, size=(2, 3), sigma=0.5),
        inputs=_body_points,
        halves=False,
        data=1,
    ),
    "PosePooling": LayerCase(
        layers.PosePooling,
        {"groups": GROUPS},
        lambda inputs: oracle_enhance.pose_pooling(*inputs, GROUPS),
        inputs=_heat,
        data=2,
    ),
    "VisibleParts": LayerCase(
        layers.VisibleParts,
        {},
        lambda inputs: oracle_enhance.visible_parts(*inputs),
        inputs=_seen_parts,
        halves=False,
    ),
    "AttributeProbabilities": LayerCase(
        layers.AttributeProbabilities,
        {"exclusive": ((1, 3), (4, 5))},
        partial(oracle_enhance.attribute_probabilities, exclusive=((1, 3), (4, 5))),
        inputs=_points,
        halves=False,
    ),
    "AttributeReweighting": LayerCase(
        layers.AttributeReweighting, {}, oracle_enhance.reweighted, inputs=_shares, weights=2
    ),
    "TemporalMean": LayerCase(
        layers.TemporalMean, {}, oracle_enhance.temporal_mean, inputs=_clip, data=1
    ),
    "TemporalMax": LayerCase(
        layers.TemporalMax, {}, oracle_enhance.temporal_max, inputs=_clip, data=1
    ),
    "TemporalAttention": LayerCase(
        layers.TemporalAttention,
        {"width": 7},
        oracle_enhance.temporal_attention,
        inputs=_clip,
        weights=4,
        data=1,
    ),
    "TemporalAttention-maps-context": LayerCase(
        layers.TemporalAttention,
        {"width": 4, "context": 3},
        oracle_enhance.temporal_attention,
        inputs=_clip_of_maps,
        weights=4,
        data=1,
    ),
    "TemporalRecurrent": LayerCase(
        layers.TemporalRecurrent,
        {"width": 4},
        oracle_enhance.temporal_recurrent,
        inputs=_clip,
        weights=3,
        data=1,
    ),
    "ClipsToFrames": LayerCase(layers.ClipsToFrames, {}, lambda x: x.reshape(-1, *x.shape[2:])),
    "FramesToClips": LayerCase(
        layers.FramesToClips,
        {},
        lambda inputs: inputs[0].reshape(3, 5, 4, 6),
        inputs=lambda x: [[x.reshape(15, 4, 6), np.ones((3, 5), "float32")]],
        data=1,
    ),
    "FusedBatchNormalization": LayerCase(
        layers.FusedBatchNormalization, {}, partial(oracle.normalized, epsilon=1e-3)
    ),
    "FusedBatchNormalization-no-shift": LayerCase(
        layers.FusedBatchNormalization,
        {"center": False, "scale": False, "epsilon": 0.1},
        partial(oracle.normalized, epsilon=0.1),
    ),
    "GeneralizedMeanPooling2D": LayerCase(
        layers.GeneralizedMeanPooling2D, {}, partial(oracle.generalized_mean, p=3.0)
    ),
    "GeneralizedMeanPooling2D-mean": LayerCase(
        layers.GeneralizedMeanPooling2D, {"p": 1.0}, partial(oracle.generalized_mean, p=1.0)
    ),
    "CosineClassifier": LayerCase(
        layers.CosineClassifier,
        {"num_identities": 5},
        oracle_classifiers.cosines,
        inputs=_points,
        weights=1,
        halves=False,
    ),
    "Centers": LayerCase(
        layers.Centers,
        {"num_identities": 5},
        oracle_classifiers.squared_distances,
        inputs=_points,
        weights=1,
        halves=False,
    ),
    "StripePooling": LayerCase(
        layers.StripePooling, {"stripes": 5}, partial(oracle_parts.stripes, count=5)
    ),
    "StripePooling-overlapping": LayerCase(
        layers.StripePooling, {"stripes": 3}, partial(oracle_parts.stripes, count=3)
    ),
    "StripePooling-max": LayerCase(
        layers.StripePooling,
        {"stripes": 2, "pooling": "max"},
        partial(oracle_parts.stripes, count=2, pooling="max"),
    ),
    "PartPooling": LayerCase(
        layers.PartPooling, {"parts": 5}, partial(oracle_parts.stripes, count=5)
    ),
    "PartPooling-overlapping": LayerCase(
        layers.PartPooling,
        {"parts": 3, "refinable": False},
        partial(oracle_parts.stripes, count=3),
    ),
    "PartPooling-refined": LayerCase(_refined_parts, {"parts": 3}, oracle_parts.refined, weights=2),
    "PartClassifiers": LayerCase(
        layers.PartClassifiers,
        {"num_identities": 5},
        oracle_parts.part_logits,
        inputs=_stripes,
        weights=1,
        halves=False,
    ),
    "MatchingGate": LayerCase(
        layers.MatchingGate,
        {"sigma": 0.5},
        lambda pair: oracle_pairs.matching_gate(*pair, np.full(6, 0.5)),
        inputs=lambda x: [[x, x[::-1]]],
    ),
    "MixStyle": LayerCase(layers.MixStyle, {"probability": 1.0, "seed": 1}, lambda x: x),
    "PairDistance": LayerCase(
        layers.PairDistance, {}, oracle_pairs.pair_distance, inputs=_two_sets, halves=False
    ),
    "PairMetric": LayerCase(
        layers.PairMetric,
        {},
        lambda x: oracle_pairs.pair_metric(x, x, np.full(6, 1 / 6), 0.0),
        inputs=_points,
        halves=False,
    ),
}

# Arguments of `models.build`, or with `temporal` of `build_tracklet`, on the smallest backbone.
MODELS: dict[str, dict[str, Any]] = {
    "avg-bn": {},
    "gem-bn": {"pooling": "gem"},
    "max-none": {"pooling": "max", "neck": "none"},
    "avg_max-bn": {"pooling": "avg_max"},
    "pose": {"heads": [heads.PoseHead(17, 8)], "pooling": "avg_max"},
    "pose-nobody": {"heads": [heads.PoseHead(15, 8)], "num_identities": None},
    "attributes": {"heads": [heads.AttributeHead(5, ((1, 2), (3, 4)))]},
    "attributes-beside": {"heads": [heads.AttributeHead(2, reweighted=False)]},
    "tracklet-mean": {"temporal": "mean"},
    "tracklet-max": {"temporal": "max", "pooling": "gem", "width": 8},
    "tracklet-attention": {"temporal": "attention"},
    "tracklet-recurrent": {"temporal": "recurrent", "num_identities": None},
    "width-16": {"width": 16},
    "no-classifier": {"num_identities": None},
    "last-stride-2": {"last_stride": 2},
    "mixstyle": {"mixstyle": 0.5},
    "instance-norm": {"instance_norm": 1.0},
    "instance-norm-half": {"instance_norm": 0.5},
    "embedding-features": {"embedding": "features"},
    "cosine-centers": {"classifier": "cosine", "centers": True},
    "local": {"heads": [heads.LocalHead(4, 16)]},
    "local-unit": {"heads": [heads.LocalHead(2, 16, "max", "bn_relu_conv", normalize=True)]},
    "parts": {"heads": [heads.PartHead(2, 16)]},
    "parts-refinable": {"heads": [heads.PartHead(4, 16, refinable=True), heads.LocalHead(3, 8)]},
    "parts-nobody": {"heads": [heads.PartHead(2, 16)], "num_identities": None},
    "ensemble": {},  # of three models as of "avg-bn"
}


@dataclass(frozen=True)
class RerankerCase:
    """Re-ranker with its oracle and the options of the tests.

    By default each whole number is a third of its default, and each other number a half. An option
    that the oracle does not have is a number of iterations, which is large for an exact result.
    """

    name: str
    more: tuple[dict[str, Any], ...] = ()

    @property
    def truth(self) -> Callable[..., Any]:
        return getattr(oracle_reranking, self.name)

    @property
    def defaults(self) -> dict[str, Any]:
        parameters = inspect.signature(reranking.RERANKERS[self.name]).parameters.values()
        return {one.name: one.default for one in list(parameters)[3:]}

    @property
    def converged(self) -> dict[str, Any]:
        own = inspect.signature(self.truth).parameters
        return {k: 25 * n for k, n in self.defaults.items() if own[k].default is None}

    @property
    def settings(self) -> tuple[dict[str, Any], ...]:
        numbers = {k: n for k, n in self.defaults.items() if k not in self.converged}
        small = {k: max(1, n // 3) if isinstance(n, int) else n / 2 for k, n in numbers.items()}
        return {}, small, *self.more


MORE_RERANKING = {
    "k_reciprocal": ({"k1": 4, "k2": 1, "lambda_value": 0.1},),
    "average_query_expansion": ({"k": 200}, {"alpha": 3.5}),
    "ecn": ({"k": 1, "t": 1, "q": 1},),
    "gnn": ({"rounds": 0, "lambda_value": 0.0},),
    "diffusion": ({"k": 8, "gamma": 2.0},),
}
RERANKERS = {name: RerankerCase(name, MORE_RERANKING.get(name, ())) for name in reranking.RERANKERS}
