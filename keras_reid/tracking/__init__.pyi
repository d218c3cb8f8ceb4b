from .appearance import embed_boxes
from .audit import AuditLog, Retention, check_retention
from .cameras import TrackIdentity, identify_tracks, track_embeddings
from .crops import BestCrops
from .detect import detect_persons
from .online import OnlineTracks, TrackBox
from .pipeline import Crops, FrameTracks, follow
from .scene import SceneWindows, in_scene
from .scores import TrackingScores, tracking_scores
from .tracker import Tracker, track, track_numbers
from .watch import Watch, WatchEvent

__all__ = [
    "AuditLog",
    "BestCrops",
    "Crops",
    "FrameTracks",
    "OnlineTracks",
    "Retention",
    "SceneWindows",
    "TrackBox",
    "TrackIdentity",
    "Tracker",
    "TrackingScores",
    "Watch",
    "WatchEvent",
    "check_retention",
    "detect_persons",
    "embed_boxes",
    "follow",
    "identify_tracks",
    "in_scene",
    "track",
    "track_embeddings",
    "track_numbers",
    "tracking_scores",
]
