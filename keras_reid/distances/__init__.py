"""Pairwise distances `(n, …) × (m, …) → (n, m)`: smaller means more similar. They see no labels.

Every function takes one or two sets. `distance(x, y)` compares every row of `x` with every row of
`y`; `distance(x)` compares the rows of `x` with each other and, but for `aligned`, has an exactly
zero diagonal. `paired(distance)` is the same distance row by row. Half precision and integers are
computed and returned in float32, float64 in float64.

Coincident points have distance 0 and gradient 0; NaN stays NaN.
"""

from collections.abc import Callable
from typing import Any

from keras_reid import checks
from keras_reid.distances.points import (
    cosine,
    euclidean,
    expansion,
    precomputed,
    same_index,
    squared_euclidean,
)
from keras_reid.distances.rows import MASKED, PRECISE, root, squared_paired, unit
from keras_reid.distances.stripes import aligned, aligned_paired
from keras_reid.distances.visibility import visible

Distance = Callable[..., Any]

DISTANCES: dict[str, Distance] = {
    "euclidean": euclidean,
    "squared_euclidean": squared_euclidean,
    "cosine": cosine,
    "aligned": aligned,
    "precomputed": precomputed,
}

_PAIRED: dict[Distance, Distance] = {
    euclidean: lambda x, y: root(squared_paired(x, y)),
    squared_euclidean: squared_paired,
    cosine: lambda x, y: squared_paired(unit(x), unit(y)) / 2,
    aligned: aligned_paired,
}


def get(distance: str | Distance) -> Distance:
    """Look up a distance by name; return a function unchanged.

    Args:
        distance: key of `DISTANCES`, or a function.

    Raises:
        InputError: if the name is unknown.

    Example:
        >>> from keras_reid import distances
        >>> distances.get("cosine") is distances.cosine
        True
    """
    if callable(distance):
        return distance
    checks.one_of(DISTANCES, "A function is allowed, too.", distance=distance)
    return DISTANCES[distance]


def paired(distance: Distance) -> Distance | None:
    """Return the same distance row by row, from exact differences.

    Args:
        distance: value of `DISTANCES`.

    Returns:
        Function `(n, …), (n, …) → (n,)`; None for a function that is not one of `DISTANCES`.

    Example:
        >>> import numpy as np
        >>> rowwise = paired(euclidean)
        >>> print(np.array(rowwise([[0.0, 0.0], [1.0, 1.0]], [[3.0, 4.0], [1.0, 1.0]])))
        [5. 0.]
    """
    return _PAIRED.get(distance)


__all__ = [
    "DISTANCES",
    "MASKED",
    "PRECISE",
    "Distance",
    "aligned",
    "aligned_paired",
    "cosine",
    "euclidean",
    "expansion",
    "get",
    "paired",
    "precomputed",
    "same_index",
    "squared_euclidean",
    "unit",
    "visible",
]
