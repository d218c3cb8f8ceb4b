from .attribute_heads import AttributeProbabilities, AttributeReweighting
from .batch_norm import FusedBatchNormalization
from .classifiers import Centers, CosineClassifier, PartClassifiers
from .mixstyle import MixStyle
from .parts import PartPooling
from .pooling import AverageMaxPooling2D, GeneralizedMeanPooling2D
from .pose import KeypointHeatmaps, PosePooling, VisibleParts
from .registry import POOLINGS, TEMPORAL
from .stripes import StripePooling
from .temporal import (
    ClipsToFrames,
    FramesToClips,
    TemporalAttention,
    TemporalMax,
    TemporalMean,
    TemporalRecurrent,
)
from .verification import MatchingGate, PairDistance, PairMetric

__all__ = [
    "POOLINGS",
    "TEMPORAL",
    "AttributeProbabilities",
    "AttributeReweighting",
    "AverageMaxPooling2D",
    "Centers",
    "ClipsToFrames",
    "CosineClassifier",
    "FramesToClips",
    "FusedBatchNormalization",
    "GeneralizedMeanPooling2D",
    "KeypointHeatmaps",
    "MatchingGate",
    "MixStyle",
    "PairDistance",
    "PairMetric",
    "PartClassifiers",
    "PartPooling",
    "PosePooling",
    "StripePooling",
    "TemporalAttention",
    "TemporalMax",
    "TemporalMean",
    "TemporalRecurrent",
    "VisibleParts",
]
