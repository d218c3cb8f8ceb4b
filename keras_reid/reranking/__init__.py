"""Better rankings without retraining: what the neighbours of query and gallery tell of them.

Every re-ranker compares all images of query and gallery among each other and returns distances
(q, g), smaller is more alike, of which the scale means nothing. `RERANKERS` names functions
`(query, gallery, progress=None, **options)` whose result is read by rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from keras_reid.reranking.graph import (
    diffusion_rows,
    ecn_rows,
    gnn_rows,
    query_expansion_rows,
)
from keras_reid.reranking.reciprocal import (
    SparseJaccard,
    k_reciprocal,
    k_reciprocal_from_distances,
    k_reciprocal_rows,
)
from keras_reid.reranking.rows import RerankedRows

__all__ = [
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

RERANKERS: dict[str, Callable[..., RerankedRows]] = {
    "k_reciprocal": k_reciprocal_rows,
    "aqe": query_expansion_rows,
    "alpha_qe": partial(query_expansion_rows, alpha=3.0),
    "ecn": ecn_rows,
    "gnn": gnn_rows,
    "diffusion": diffusion_rows,
}


def query_expansion(query: Any, gallery: Any, k: int = 10, alpha: float = 0.0) -> np.ndarray:
    return query_expansion_rows(query, gallery, None, k, alpha).matrix()


def ecn(query: Any, gallery: Any, k: int = 25, t: int = 3, q: int = 8) -> np.ndarray:
    return ecn_rows(query, gallery, None, k, t, q).matrix()


def gnn(
    query: Any,
    gallery: Any,
    k1: int = 26,
    k2: int = 7,
    rounds: int = 2,
    lambda_value: float = 0.3,
) -> np.ndarray:
    return gnn_rows(query, gallery, None, k1, k2, rounds, lambda_value).matrix()


def diffusion(
    query: Any,
    gallery: Any,
    k: int = 50,
    gamma: float = 3.0,
    alpha: float = 0.99,
    iterations: int = 20,
) -> np.ndarray:
    return diffusion_rows(query, gallery, None, k, gamma, alpha, iterations).matrix()


for function, rows in (
    (query_expansion, query_expansion_rows),
    (ecn, ecn_rows),
    (gnn, gnn_rows),
    (diffusion, diffusion_rows),
):
    function.__doc__ = rows.__doc__
