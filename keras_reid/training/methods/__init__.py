"""Methods of training: each one class in one file, with its settings and all that it adds."""

from keras_reid.training.methods.attributes import Attributes
from keras_reid.training.methods.distillation import Distillation
from keras_reid.training.methods.pair_verifier import PairVerification
from keras_reid.training.methods.parts import Parts
from keras_reid.training.methods.pose import Pose
from keras_reid.training.methods.pretraining import Pretraining
from keras_reid.training.methods.stripes import Stripes
from keras_reid.training.methods.tracklets import Tracklets

__all__ = [
    "Attributes",
    "Distillation",
    "PairVerification",
    "Parts",
    "Pose",
    "Pretraining",
    "Stripes",
    "Tracklets",
]
