from . import backbones, heads
from .derived import (
    embedder,
    ensemble,
    feature_maps,
    image_size,
    input_names,
    mirrored,
    outputs_at_test,
    stripes,
    takes_clips,
    unit_outputs,
)
from .image import PROJECTION, build, with_projection
from .pair import build_pair_verifier, is_pair_verifier, no_embeddings, pair_distances
from .registry import BACKBONES, CLASSIFIERS, NECKS, POOLINGS
from .reid_model import ReidModel
from .shipped import PRETRAINED, ModelCard, pretrained
from .video import build_tracklet

__all__ = [
    "BACKBONES",
    "CLASSIFIERS",
    "NECKS",
    "POOLINGS",
    "PRETRAINED",
    "PROJECTION",
    "ModelCard",
    "ReidModel",
    "backbones",
    "build",
    "build_pair_verifier",
    "build_tracklet",
    "embedder",
    "ensemble",
    "feature_maps",
    "heads",
    "image_size",
    "input_names",
    "is_pair_verifier",
    "mirrored",
    "no_embeddings",
    "outputs_at_test",
    "pair_distances",
    "pretrained",
    "stripes",
    "takes_clips",
    "unit_outputs",
    "with_projection",
]
