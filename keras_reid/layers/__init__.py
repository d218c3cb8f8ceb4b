"""Layers that re-identification models are made of."""

from keras_reid.layers.batch_norm import FusedBatchNormalization
from keras_reid.layers.pooling import GeneralizedMeanPooling2D

__all__ = ["FusedBatchNormalization", "GeneralizedMeanPooling2D"]
