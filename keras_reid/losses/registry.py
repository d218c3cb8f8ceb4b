"""Metric losses by the names that recipes and flags use."""

from keras_reid.losses.base import MetricLoss
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
