from .functions import diffusion, ecn, gnn, query_expansion
from .reciprocal import SparseJaccard, k_reciprocal, k_reciprocal_from_distances
from .registry import IN_GRAPH, RERANKERS

__all__ = [
    "IN_GRAPH",
    "RERANKERS",
    "SparseJaccard",
    "diffusion",
    "ecn",
    "gnn",
    "k_reciprocal",
    "k_reciprocal_from_distances",
    "query_expansion",
]
