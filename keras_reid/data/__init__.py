"""Person images on disk: readers, checks, PK batches, and a synthetic data set to start with."""

from keras_reid.data import synthetic
from keras_reid.data.attribute_tables import AttributeSchema, AttributeTable, rates, read_attributes
from keras_reid.data.clips import clip_batches, pk_clips
from keras_reid.data.decode import decodable, readable, unfit
from keras_reid.data.faults import CheckReport, check
from keras_reid.data.frames import cut_tracklets, frame_rate, video_frames
from keras_reid.data.grouping import tracklet_dataset, tracklets
from keras_reid.data.images import TRACKLET, PersonImages, ReidDataset, joined
from keras_reid.data.keypoints import (
    MoveNet,
    PoseEstimator,
    annotated,
    estimate_keypoints,
    estimator_of,
    read_keypoints,
)
from keras_reid.data.pair_sampling import pair_batches
from keras_reid.data.pipeline import image_batches, pk_batches
from keras_reid.data.readers import READERS, load
from keras_reid.data.readers.layouts import SUFFIXES, unlabelled
from keras_reid.data.sampling import pk_steps
from keras_reid.data.writing import write

__all__ = [
    "READERS",
    "SUFFIXES",
    "TRACKLET",
    "AttributeSchema",
    "AttributeTable",
    "CheckReport",
    "MoveNet",
    "PersonImages",
    "PoseEstimator",
    "ReidDataset",
    "annotated",
    "check",
    "clip_batches",
    "cut_tracklets",
    "decodable",
    "estimate_keypoints",
    "estimator_of",
    "frame_rate",
    "image_batches",
    "joined",
    "load",
    "pair_batches",
    "pk_batches",
    "pk_clips",
    "pk_steps",
    "rates",
    "read_attributes",
    "read_keypoints",
    "readable",
    "synthetic",
    "tracklet_dataset",
    "tracklets",
    "unfit",
    "unlabelled",
    "video_frames",
    "write",
]
