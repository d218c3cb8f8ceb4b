from .embedder import Embedder, joined, tracklet_means
from .fingerprints import fingerprint
from .keras_model import KerasEmbedder
from .loading import RUNTIMES, load
from .metadata import Metadata
from .preprocessing import Preprocessing
from .runs import TrainedRun
from .sources import Source

__all__ = [
    "RUNTIMES",
    "Embedder",
    "KerasEmbedder",
    "Metadata",
    "Preprocessing",
    "Source",
    "TrainedRun",
    "fingerprint",
    "joined",
    "load",
    "tracklet_means",
]
