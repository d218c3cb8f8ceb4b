"""Re-rankers as functions of the whole matrix, which also work inside a tf.function."""

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from keras_reid.nearest.arrays import Rows
from keras_reid.reranking import inputs
from keras_reid.reranking.neighbor_graphs import (
    diffusion_rows,
    ecn_rows,
    gnn_rows,
    query_expansion_rows,
)


def _whole(make: Callable[..., Rows], name: str) -> Callable[..., Any]:
    """The re-ranker as a function `(query, gallery, **options)` of the whole (q, g) matrix.

    Inside a tf.function it returns a tensor, and rows that are not finite are infinitely far.
    """

    @wraps(make, assigned=("__doc__",))
    def function(query: Any, gallery: Any, *options: Any, **named: Any) -> Any:
        return inputs.whole(partial(make, **named), query, gallery, *options)

    signature = inspect.signature(make)
    shown = [p for p in signature.parameters.values() if p.name != "progress"]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=shown, return_annotation=np.ndarray
    )
    function.__name__ = function.__qualname__ = name
    return function


query_expansion = _whole(query_expansion_rows, "query_expansion")
alpha_query_expansion = partial(query_expansion, alpha=3.0)
ecn = _whole(ecn_rows, "ecn")
gnn = _whole(gnn_rows, "gnn")
diffusion = _whole(diffusion_rows, "diffusion")
