from .functions import diffusion, ecn, gnn, query_expansion
from .reciprocal import SparseJaccard, k_reciprocal, k_reciprocal_from_distances
from .registry import IN_GRAPH, RERANKERS
from .reranked import RerankedRows

__all__ = [
    "IN_GRAPH",
    "RERANKERS",
    "RerankedRows",
    "SparseJaccard",
    "diffusion",
    "ecn",
    "gnn",
    "k_reciprocal",
    "k_reciprocal_from_distances",
    "query_expansion",
]
