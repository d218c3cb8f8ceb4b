"""Re-rankers by the names that flags use."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_reid.registry import Registry

if TYPE_CHECKING:
    from keras_reid.nearest.arrays import Rows

# `(query, gallery, progress=None, **options)` → rows of distances.
RERANKERS: "Registry[Callable[..., Rows]]" = Registry(
    k_reciprocal="keras_reid.reranking.reciprocal:k_reciprocal_rows",
    aqe="keras_reid.reranking.neighbor_graphs:query_expansion_rows",
    alpha_qe="keras_reid.reranking.neighbor_graphs:alpha_query_expansion_rows",
    ecn="keras_reid.reranking.neighbor_graphs:ecn_rows",
    gnn="keras_reid.reranking.neighbor_graphs:gnn_rows",
    diffusion="keras_reid.reranking.neighbor_graphs:diffusion_rows",
)
# `(query, gallery, **options)` → distances (q, g); these run inside a tf.function and are exported.
IN_GRAPH: Registry[Callable[..., Any]] = Registry(
    k_reciprocal="keras_reid.reranking.reciprocal:k_reciprocal",
    aqe="keras_reid.reranking.functions:query_expansion",
    alpha_qe="keras_reid.reranking.functions:alpha_query_expansion",
    ecn="keras_reid.reranking.functions:ecn",
    gnn="keras_reid.reranking.functions:gnn",
)
