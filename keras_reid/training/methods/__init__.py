"""Methods of training: each one class in one file, with its settings and all that it adds."""

from keras_reid.training.methods.attributes import Attributes
from keras_reid.training.methods.distillation import Distillation
from keras_reid.training.methods.method import (
    Annotations,
    LossSettings,
    Method,
    Phase,
    Settings,
    WeightedLoss,
    setting,
)
from keras_reid.training.methods.parts import Parts
from keras_reid.training.methods.pose import Pose
from keras_reid.training.methods.pretraining import Pretraining
from keras_reid.training.methods.stripes import Stripes
from keras_reid.training.methods.tracklets import Tracklets

__all__ = [
    "Annotations",
    "Attributes",
    "Distillation",
    "LossSettings",
    "Method",
    "Parts",
    "Phase",
    "Pose",
    "Pretraining",
    "Settings",
    "Stripes",
    "Tracklets",
    "WeightedLoss",
    "setting",
]
