"""Layers that re-identification models are made of."""

from keras_reid.layers.batch_norm import FusedBatchNormalization
from keras_reid.layers.classifiers import Centres, CosineClassifier, PartClassifiers
from keras_reid.layers.pairs import MatchingGate, PairDistance, PairMetric
from keras_reid.layers.parts import PartPooling
from keras_reid.layers.pooling import GeneralizedMeanPooling2D
from keras_reid.layers.stripes import StripePooling

__all__ = [
    "Centres",
    "CosineClassifier",
    "FusedBatchNormalization",
    "GeneralizedMeanPooling2D",
    "MatchingGate",
    "PairDistance",
    "PairMetric",
    "PartClassifiers",
    "PartPooling",
    "StripePooling",
]
