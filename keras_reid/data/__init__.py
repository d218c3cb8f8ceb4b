"""Person images on disk: readers, checks, PK batches, and a synthetic data set to start with."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
