from .loading import Detector, detector_of, uses_tensorflow
from .photos import Photos, cropped, is_photo, person_boxes

__all__ = [
    "Detector",
    "Photos",
    "cropped",
    "detector_of",
    "is_photo",
    "person_boxes",
    "uses_tensorflow",
]
