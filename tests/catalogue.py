"""Every loss, distance, miner, layer and model of the package once, with what it must equal.

`test_conformance.py` runs every property over everything listed here, so that adding a line adds
all its tests. What stands before the first hyphen is the public name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import oracle

from keras_reid import distances, layers, losses, mining


@dataclass(frozen=True)
class LossCase:
    """A loss, how it is made, and its oracle `(labels, predictions) -> float`."""

    build: Callable[..., keras.losses.Loss]
    arguments: dict[str, Any]
    truth: Callable[..., float]
    metric: bool = True  # embeddings that are compared; otherwise logits of a classifier

    def loss(self, **more: Any) -> keras.losses.Loss:
        return self.build(**self.arguments, **more)

    def value(self, labels: np.ndarray, predictions: np.ndarray) -> float:
        return self.truth(labels, predictions, **self.arguments)


def triplet_hard(**arguments: Any) -> LossCase:
    return LossCase(losses.TripletHardLoss, arguments, oracle.triplet_hard)


def identity(**arguments: Any) -> LossCase:
    return LossCase(losses.IdentityLoss, arguments, oracle.smoothed_cross_entropy, metric=False)


LOSSES: dict[str, LossCase] = {
    "TripletHardLoss": triplet_hard(),
    "TripletHardLoss-margin-1": triplet_hard(margin=1.0),
    "TripletHardLoss-soft-margin": triplet_hard(margin=None),
    "TripletHardLoss-squared": triplet_hard(distance="squared_euclidean", margin=0.2),
    "TripletHardLoss-cosine": triplet_hard(distance="cosine", margin=0.1),
    "TripletHardLoss-on-the-sphere": triplet_hard(normalize=True, margin=0.6),
    "IdentityLoss": identity(),
    "IdentityLoss-not-smoothed": identity(smoothing=0.0),
}

DISTANCES: dict[str, tuple[distances.Distance, Callable[..., np.ndarray]]] = {
    "euclidean": (distances.euclidean, partial(oracle.matrix, distance="euclidean")),
    "squared_euclidean": (
        distances.squared_euclidean,
        partial(oracle.matrix, distance="squared_euclidean"),
    ),
    "cosine": (distances.cosine, partial(oracle.matrix, distance="cosine")),
}

MINERS: dict[str, tuple[mining.Miner, Callable[..., list[tuple[float, float]]]]] = {
    "batch_hard": (mining.batch_hard, oracle.comparisons_batch_hard),
    "soft_hard": (mining.soft_hard, oracle.comparisons_soft_hard),
    "margin_sample": (mining.margin_sample, oracle.comparisons_margin_sample),
    "all_triplets": (mining.all_triplets, oracle.comparisons_all_triplets),
}


@dataclass(frozen=True)
class LayerCase:
    """A layer, how it is made, and its oracle `x (b, h, w, d) -> y` in inference."""

    build: Callable[..., keras.layers.Layer]
    arguments: dict[str, Any]
    truth: Callable[[np.ndarray], np.ndarray]

    def layer(self) -> keras.layers.Layer:
        return self.build(**self.arguments)


LAYERS: dict[str, LayerCase] = {
    "FusedBatchNormalization": LayerCase(
        layers.FusedBatchNormalization, {}, partial(oracle.normalised, epsilon=1e-3)
    ),
    "FusedBatchNormalization-no-shift": LayerCase(
        layers.FusedBatchNormalization,
        {"center": False, "scale": False, "epsilon": 0.1},
        partial(oracle.normalised, epsilon=0.1),
    ),
    "GeneralizedMeanPooling2D": LayerCase(
        layers.GeneralizedMeanPooling2D, {}, partial(oracle.generalized_mean, p=3.0)
    ),
    "GeneralizedMeanPooling2D-mean": LayerCase(
        layers.GeneralizedMeanPooling2D, {"p": 1.0}, partial(oracle.generalized_mean, p=1.0)
    ),
}

# Arguments of `models.build` on the smallest backbone.
MODELS: dict[str, dict[str, Any]] = {
    "avg-bn": {},
    "gem-bn": {"pooling": "gem"},
    "max-none": {"pooling": "max", "neck": "none"},
    "width-16": {"width": 16},
    "no-classifier": {"num_identities": None},
    "last-stride-2": {"last_stride": 2},
}
