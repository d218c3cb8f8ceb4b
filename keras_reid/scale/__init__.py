"""Embeddings of more images than fit into memory: files of shards, by many processes at once."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
