from .loading import Detector, detector_of

__all__ = ["Detector", "detector_of"]
