from .alignment import AlignedTripletLoss
from .attributes import AttributeLoss
from .base import STATISTICS, MetricLoss
from .distillation import (
    DistanceDistillationLoss,
    DistillationLoss,
    LogitDistillationLoss,
    RankDistillationLoss,
)
from .identity import CenterLoss, IdentityLoss, MarginSoftmaxLoss, VisibleIdentityLoss
from .metric import (
    ImprovedTripletLoss,
    MarginSampleMiningLoss,
    SoftTripletHardLoss,
    TripletHardLoss,
    TripletLoss,
    TripletSemiHardLoss,
)
from .pairs import CircleLoss, ContrastiveLoss, LiftedStructureLoss
from .quadruplet import ImprovedQuadrupletLoss, QuadrupletLoss
from .registry import DISTILLATION_LOSSES, MARGINS, METRIC_LOSSES
from .statistics import BatchStatistics

__all__ = [
    "DISTILLATION_LOSSES",
    "MARGINS",
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
