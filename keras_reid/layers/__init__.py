"""Layers that re-identification models are made of."""

from keras_reid.layers.attribute_heads import AttributeProbabilities, AttributeReweighting
from keras_reid.layers.batch_norm import FusedBatchNormalization
from keras_reid.layers.classifiers import Centres, CosineClassifier, PartClassifiers
from keras_reid.layers.parts import PartPooling
from keras_reid.layers.pooling import AverageMaxPooling2D, GeneralizedMeanPooling2D
from keras_reid.layers.pose import KeypointHeatmaps, PosePooling, VisibleParts
from keras_reid.layers.stripes import StripePooling
from keras_reid.layers.style import MixStyle
from keras_reid.layers.temporal import (
    ClipsToFrames,
    FramesToClips,
    TemporalAttention,
    TemporalMax,
    TemporalMean,
    TemporalRecurrent,
)
from keras_reid.layers.verification import MatchingGate, PairDistance, PairMetric

__all__ = [
    "AttributeProbabilities",
    "AttributeReweighting",
    "AverageMaxPooling2D",
    "Centres",
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
