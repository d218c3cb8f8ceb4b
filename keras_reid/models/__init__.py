"""Models: backbones, necks and heads; their parts for training, and the embedders at test time."""

from keras_reid.saving import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
