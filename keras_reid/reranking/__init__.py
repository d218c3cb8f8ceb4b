"""Better rankings without retraining: what the neighbors of query and gallery say of them.

Every re-ranker compares all images of query and gallery among each other and returns distances
(q, g), smaller is more alike, of which the scale means nothing. `RERANKERS` names functions
`(query, gallery, progress=None, **options)` whose result is read by rows, `IN_GRAPH` those
`(query, gallery, **options)` that work inside a tf.function too: all but diffusion.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
