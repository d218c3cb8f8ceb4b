"""Methods of training: each is one class in one file, with its settings and functions."""

from keras_reid.training.methods.attributes import Attributes as Attributes
from keras_reid.training.methods.distillation import Distillation as Distillation
from keras_reid.training.methods.pair_verifier import PairVerification as PairVerification
from keras_reid.training.methods.parts import Parts as Parts
from keras_reid.training.methods.pose import Pose as Pose
from keras_reid.training.methods.pretraining import Pretraining as Pretraining
from keras_reid.training.methods.sources import Sources as Sources
from keras_reid.training.methods.stripes import Stripes as Stripes
from keras_reid.training.methods.tracklets import Tracklets as Tracklets
