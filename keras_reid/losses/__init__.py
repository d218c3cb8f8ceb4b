"""Losses for person re-identification, all `keras.losses.Loss`: they work in a plain `fit`."""

from keras_reid.losses.alignment import AlignedTripletLoss
from keras_reid.losses.attributes import AttributeLoss
from keras_reid.losses.base import FACTS, MetricLoss
from keras_reid.losses.facts import LossFact, facts
from keras_reid.losses.identity import (
    CenterLoss,
    IdentityLoss,
    MarginSoftmaxLoss,
    VisibleIdentityLoss,
)
from keras_reid.losses.imitation import (
    IMITATIONS,
    DistanceImitation,
    Imitation,
    LogitImitation,
    RankImitation,
)
from keras_reid.losses.metric import (
    ImprovedTripletLoss,
    MarginSampleMiningLoss,
    SoftTripletHardLoss,
    TripletHardLoss,
    TripletLoss,
    TripletSemiHardLoss,
)
from keras_reid.losses.pairs import CircleLoss, ContrastiveLoss, LiftedStructureLoss
from keras_reid.losses.quadruplet import ImprovedQuadrupletLoss, QuadrupletLoss

# The losses over embeddings, by the names that recipes and flags use.
METRIC_LOSSES: dict[str, type[MetricLoss]] = {
    "circle": CircleLoss,
    "contrastive": ContrastiveLoss,
    "improved_quadruplet": ImprovedQuadrupletLoss,
    "improved_triplet": ImprovedTripletLoss,
    "lifted_structure": LiftedStructureLoss,
    "margin_sample_mining": MarginSampleMiningLoss,
    "quadruplet": QuadrupletLoss,
    "soft_triplet_hard": SoftTripletHardLoss,
    "triplet": TripletLoss,
    "triplet_hard": TripletHardLoss,
    "triplet_semi_hard": TripletSemiHardLoss,
}

__all__ = [
    "FACTS",
    "IMITATIONS",
    "METRIC_LOSSES",
    "AlignedTripletLoss",
    "AttributeLoss",
    "CenterLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "DistanceImitation",
    "IdentityLoss",
    "Imitation",
    "ImprovedQuadrupletLoss",
    "ImprovedTripletLoss",
    "LiftedStructureLoss",
    "LogitImitation",
    "LossFact",
    "MarginSampleMiningLoss",
    "MarginSoftmaxLoss",
    "MetricLoss",
    "QuadrupletLoss",
    "RankImitation",
    "SoftTripletHardLoss",
    "TripletHardLoss",
    "TripletLoss",
    "TripletSemiHardLoss",
    "VisibleIdentityLoss",
    "facts",
]
