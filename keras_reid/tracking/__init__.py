"""Following persons: within a camera from detections to tracklets, across cameras by a gallery."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
