"""Person images on disk: readers, checks, PK batches, and a synthetic data set to start with."""

from keras_reid.data import synthetic
from keras_reid.data.attributes import AttributeSchema, AttributeTable, rates, read_attributes
from keras_reid.data.checking import CheckReport, check
from keras_reid.data.clips import clip_batches, pk_clips
from keras_reid.data.decode import decodable, readable, unfit
from keras_reid.data.grouping import (
    TrackletDataset,
    Tracklets,
    readable_tracklets,
    tracklet_dataset,
    tracklets,
)
from keras_reid.data.images import PersonImages, ReidDataset
from keras_reid.data.keypoints import (
    MoveNet,
    PoseEstimator,
    annotated,
    estimate_keypoints,
    estimator_of,
    read_keypoints,
)
from keras_reid.data.layouts import SUFFIXES, unlabelled
from keras_reid.data.pairs import pair_batches
from keras_reid.data.pipeline import image_batches, pk_batches
from keras_reid.data.readers import load
from keras_reid.data.sampling import pk_steps
from keras_reid.data.videos import (
    DATASETS,
    check_dataset,
    cut_tracklets,
    frame_rate,
    load_tracklets,
    video_frames,
)
from keras_reid.data.writing import write

__all__ = [
    "DATASETS",
    "SUFFIXES",
    "AttributeSchema",
    "AttributeTable",
    "CheckReport",
    "MoveNet",
    "PersonImages",
    "PoseEstimator",
    "ReidDataset",
    "TrackletDataset",
    "Tracklets",
    "annotated",
    "check",
    "check_dataset",
    "clip_batches",
    "cut_tracklets",
    "decodable",
    "estimate_keypoints",
    "estimator_of",
    "frame_rate",
    "image_batches",
    "load",
    "load_tracklets",
    "pair_batches",
    "pk_batches",
    "pk_clips",
    "pk_steps",
    "rates",
    "read_attributes",
    "read_keypoints",
    "readable",
    "readable_tracklets",
    "synthetic",
    "tracklet_dataset",
    "tracklets",
    "unfit",
    "unlabelled",
    "video_frames",
    "write",
]
