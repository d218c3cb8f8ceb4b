"""Losses for person re-identification, all `keras.losses.Loss`: they work in a plain `fit`."""

from keras_reid.losses.identity import IdentityLoss
from keras_reid.losses.metric import MetricLoss, TripletHardLoss

__all__ = ["IdentityLoss", "MetricLoss", "TripletHardLoss"]
