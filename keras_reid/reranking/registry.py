"""Re-rankers by name: what is read by rows, and what works inside a tf.function too."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.nearest import graph
from keras_reid.nearest.arrays import Rows
from keras_reid.reranking import inputs
from keras_reid.reranking.neighbour_graphs import (
    diffusion_rows,
    ecn_rows,
    gnn_rows,
    query_expansion_rows,
)
from keras_reid.reranking.reciprocal import k_reciprocal, k_reciprocal_rows

RERANKERS: dict[str, Callable[..., Rows]] = {
    "k_reciprocal": k_reciprocal_rows,
    "aqe": query_expansion_rows,
    "alpha_qe": partial(query_expansion_rows, alpha=3.0),
    "ecn": ecn_rows,
    "gnn": gnn_rows,
    "diffusion": diffusion_rows,
}


def _whole(make: Callable[..., Rows], name: str) -> Callable[..., Any]:
    """The re-ranker as a function `(query, gallery, **options)` of the whole (q, g) matrix.

    Inside a tf.function it returns a tensor, and rows that are not finite are infinitely far.
    """

    def function(query: Any, gallery: Any, *options: Any, **named: Any) -> Any:
        if tf.executing_eagerly():
            return make(query, gallery, None, *options, **named).matrix()
        return inputs.of_finite_rows(
            query, gallery, lambda q, g: graph.matrix(make(q, g, None, *options, **named))
        )

    signature = inspect.signature(make)
    shown = [p for p in signature.parameters.values() if p.name != "progress"]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=shown, return_annotation=np.ndarray
    )
    function.__name__ = function.__qualname__ = name
    function.__doc__ = make.__doc__
    return function


query_expansion = _whole(query_expansion_rows, "query_expansion")
ecn = _whole(ecn_rows, "ecn")
gnn = _whole(gnn_rows, "gnn")
diffusion = _whole(diffusion_rows, "diffusion")

# Those that also run inside a tf.function, so that they can be exported.
IN_GRAPH: dict[str, Callable[..., Any]] = {
    "k_reciprocal": k_reciprocal,
    "aqe": query_expansion,
    "alpha_qe": partial(query_expansion, alpha=3.0),
    "ecn": ecn,
    "gnn": gnn,
}
