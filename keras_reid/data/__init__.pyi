from . import synthetic
from .attribute_tables import AttributeSchema, AttributeTable, rates, read_attributes
from .clips import clip_batches, pk_clips
from .frames import cut_tracklets
from .grouping import tracklet_dataset, tracklets
from .images import TRACKLET, PersonImages, ReidDataset, joined
from .keypoints import (
    MoveNet,
    PoseEstimator,
    annotated,
    estimate_keypoints,
    estimator_of,
    read_keypoints,
)
from .pair_sampling import pair_batches
from .pipeline import from_service, image_batches, pk_batches
from .queries import query_images, usable
from .readers import READERS, load
from .readers.layouts import SUFFIXES, unlabeled, walk_images
from .sampling import pk_steps
from .validation import CheckReport, check, decodable, readable, unfit
from .video import Video, frame_rate, video_frames
from .writing import write

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
    "Video",
    "annotated",
    "check",
    "clip_batches",
    "cut_tracklets",
    "decodable",
    "estimate_keypoints",
    "estimator_of",
    "frame_rate",
    "from_service",
    "image_batches",
    "joined",
    "load",
    "pair_batches",
    "pk_batches",
    "pk_clips",
    "pk_steps",
    "query_images",
    "rates",
    "read_attributes",
    "read_keypoints",
    "readable",
    "synthetic",
    "tracklet_dataset",
    "tracklets",
    "unfit",
    "unlabeled",
    "usable",
    "video_frames",
    "walk_images",
    "write",
]
