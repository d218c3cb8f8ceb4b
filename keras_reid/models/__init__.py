"""Models: backbones, necks and heads; their parts for training, and what embeds at test time."""

from keras_reid.layers.pooling import POOLINGS
from keras_reid.models import backbones, heads
from keras_reid.models.heads import CLASSIFIERS, NECKS
from keras_reid.models.image import build
from keras_reid.models.inference import (
    Embedder,
    embed,
    embedder,
    ensemble,
    image_size,
    input_names,
    joined,
    mirrored,
    outputs_at_test,
    stripes,
    takes_clips,
    unit_outputs,
)
from keras_reid.models.outputs import NamedOutputs
from keras_reid.models.pair import build_pair_verifier, pair_distances
from keras_reid.models.video import build_tracklet

__all__ = [
    "CLASSIFIERS",
    "NECKS",
    "POOLINGS",
    "Embedder",
    "NamedOutputs",
    "backbones",
    "build",
    "build_pair_verifier",
    "build_tracklet",
    "embed",
    "embedder",
    "ensemble",
    "heads",
    "image_size",
    "input_names",
    "joined",
    "mirrored",
    "outputs_at_test",
    "pair_distances",
    "stripes",
    "takes_clips",
    "unit_outputs",
]
