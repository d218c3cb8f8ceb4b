"""Re-rankers by name."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_reid.registry import Registry

if TYPE_CHECKING:
    from keras_reid.nearest.arrays import Rows

METHODS = {
    "k_reciprocal": "keras_reid.reranking.reciprocal:k_reciprocal",
    "average_query_expansion": "keras_reid.reranking.neighbor_graphs:query_expansion",
    "alpha_query_expansion": "keras_reid.reranking.neighbor_graphs:alpha_query_expansion",
    "ecn": "keras_reid.reranking.neighbor_graphs:ecn",
    "gnn": "keras_reid.reranking.neighbor_graphs:gnn",
    "diffusion": "keras_reid.reranking.spreading:diffusion",
}
ALIASES = {"aqe": "average_query_expansion", "alpha_qe": "alpha_query_expansion"}  # short names
NOT_IN_GRAPH = ("diffusion",)


def full_name(name: str) -> str:
    """Return the full name of a re-ranker for its full or short name.

    Example:
        >>> full_name("aqe")
        'average_query_expansion'
    """
    return ALIASES.get(name, name)


# `(query, gallery, progress=None, **options)` → rows of distances.
RERANKERS: "Registry[Callable[..., Rows]]" = Registry(
    **{name: f"{path}.rows" for name, path in METHODS.items()}
)
# `(query, gallery, **options)` → distances (q, g); these run inside a tf.function and are exported.
IN_GRAPH: Registry[Callable[..., Any]] = Registry(
    **{name: path for name, path in METHODS.items() if name not in NOT_IN_GRAPH}
)
