from .appearance import embed_boxes
from .cameras import TrackIdentity, identify_tracks, track_embeddings
from .detect import detect_persons
from .scores import TrackingScores, tracking_scores
from .tracker import Tracker, track, track_numbers

__all__ = [
    "TrackIdentity",
    "Tracker",
    "TrackingScores",
    "detect_persons",
    "embed_boxes",
    "identify_tracks",
    "track",
    "track_embeddings",
    "track_numbers",
    "tracking_scores",
]
