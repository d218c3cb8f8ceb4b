"""Embedders as files that run elsewhere: SavedModel, ONNX, LiteRT, OpenVINO; their checks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
