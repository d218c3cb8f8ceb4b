"""Following persons: within a camera from detections to tracklets, across cameras by a gallery."""

from keras_reid.tracking.appearance import embed_boxes
from keras_reid.tracking.cameras import Identified, identify_tracks, track_embeddings
from keras_reid.tracking.detect import detect_persons
from keras_reid.tracking.scores import TrackingScores, tracking_scores
from keras_reid.tracking.tracker import Tracker, track

__all__ = [
    "Identified",
    "Tracker",
    "TrackingScores",
    "detect_persons",
    "embed_boxes",
    "identify_tracks",
    "track",
    "track_embeddings",
    "tracking_scores",
]
