import typing

from .neighbor_graphs import query_expansion
from .reciprocal import SparseJaccard, k_reciprocal_from_distances
from .registry import ALIASES, IN_GRAPH, RERANKERS, full_name

__all__ = [
    "ALIASES",
    "IN_GRAPH",
    "RERANKERS",
    "SparseJaccard",
    "full_name",
    "k_reciprocal_from_distances",
    "query_expansion",
]

def __getattr__(name: str) -> typing.Any: ...
