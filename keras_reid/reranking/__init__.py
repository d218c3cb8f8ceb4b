"""Re-ranking: better rankings without training, from the neighbors of query and gallery images.

Every re-ranker compares all images of query and gallery with each other and returns distances
(q, g). Smaller means more similar; the scale has no meaning. `reranking.NAME(query, gallery,
**options)` returns the matrix, also inside a tf.function except for diffusion.
`RERANKERS[NAME](query, gallery, progress=None, **options)` returns rows that are computed on
reading.
"""

from pkgutil import resolve_name
from typing import Any

import lazy_loader

from keras_reid.reranking.registry import METHODS

_stub, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.extend(METHODS)


def __getattr__(name: str) -> Any:
    return resolve_name(METHODS[name]) if name in METHODS else _stub(name)


def __dir__() -> list[str]:
    return __all__
