"""Losses for person re-identification, all `keras.losses.Loss`: they work in a plain `fit`."""

from keras_reid.losses.alignment import AlignedTripletLoss
from keras_reid.losses.attributes import AttributeLoss
from keras_reid.losses.base import STATISTICS, MetricLoss
from keras_reid.losses.distillation import (
    DISTILLATION_LOSSES,
    DistanceDistillationLoss,
    DistillationLoss,
    LogitDistillationLoss,
    RankDistillationLoss,
)
from keras_reid.losses.identity import (
    CenterLoss,
    IdentityLoss,
    MarginSoftmaxLoss,
    VisibleIdentityLoss,
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
from keras_reid.losses.statistics import BatchStatistics

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
    "DISTILLATION_LOSSES",
    "METRIC_LOSSES",
    "STATISTICS",
    "AlignedTripletLoss",
    "AttributeLoss",
    "BatchStatistics",
    "CenterLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "DistanceDistillationLoss",
    "DistillationLoss",
    "IdentityLoss",
    "ImprovedQuadrupletLoss",
    "ImprovedTripletLoss",
    "LiftedStructureLoss",
    "LogitDistillationLoss",
    "MarginSampleMiningLoss",
    "MarginSoftmaxLoss",
    "MetricLoss",
    "QuadrupletLoss",
    "RankDistillationLoss",
    "SoftTripletHardLoss",
    "TripletHardLoss",
    "TripletLoss",
    "TripletSemiHardLoss",
    "VisibleIdentityLoss",
]
