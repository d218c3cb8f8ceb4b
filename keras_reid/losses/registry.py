"""Losses by the names that recipes and flags use."""

from typing import TYPE_CHECKING

from keras_reid.registry import Registry

if TYPE_CHECKING:
    from keras_reid.losses.base import MetricLoss
    from keras_reid.losses.distillation import DistillationLoss
    from keras_reid.losses.margins import Margin

METRIC_LOSSES: "Registry[type[MetricLoss]]" = Registry(
    circle="keras_reid.losses.pairs:CircleLoss",
    contrastive="keras_reid.losses.pairs:ContrastiveLoss",
    improved_quadruplet="keras_reid.losses.quadruplet:ImprovedQuadrupletLoss",
    improved_triplet="keras_reid.losses.metric:ImprovedTripletLoss",
    lifted_structure="keras_reid.losses.pairs:LiftedStructureLoss",
    margin_sample_mining="keras_reid.losses.metric:MarginSampleMiningLoss",
    quadruplet="keras_reid.losses.quadruplet:QuadrupletLoss",
    soft_triplet_hard="keras_reid.losses.metric:SoftTripletHardLoss",
    triplet="keras_reid.losses.metric:TripletLoss",
    triplet_hard="keras_reid.losses.metric:TripletHardLoss",
    triplet_semi_hard="keras_reid.losses.metric:TripletSemiHardLoss",
)
DISTILLATION_LOSSES: "Registry[type[DistillationLoss]]" = Registry(
    logits="keras_reid.losses.distillation:LogitDistillationLoss",
    distances="keras_reid.losses.distillation:DistanceDistillationLoss",
    ranks="keras_reid.losses.distillation:RankDistillationLoss",
)
# Kinds of `MarginSoftmaxLoss`.
MARGINS: "Registry[Margin]" = Registry(
    arcface="keras_reid.losses.margins:ARCFACE",
    cosface="keras_reid.losses.margins:COSFACE",
    sphereface="keras_reid.losses.margins:SPHERE",
)
