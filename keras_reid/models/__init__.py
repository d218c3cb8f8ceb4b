"""Models: backbones, necks and heads; their parts for training, and what embeds at test time."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
