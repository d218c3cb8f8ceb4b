"""Distances between partly occluded images: the parts that are visible in both."""

from typing import Any

from keras import ops

from keras_reid import checks
from keras_reid.distances.points import ONE_MODEL, euclidean
from keras_reid.distances.rows import at_least_float32

Tensor = Any


def visible(
    parts: Tensor,
    visibility: Tensor,
    other_parts: Tensor,
    other_visibility: Tensor,
    whole: Tensor,
) -> Tensor:
    """`(|g − g'| + Σ_p v_p v'_p |f_p − f'_p|) / (1 + Σ_p v_p v'_p)`, with g the whole image.

    A weighted mean: the whole image g has the weight 1, a part the product of its visibilities.
    If no part is visible in both images, the result is `whole`. From Wang et al. (HOReID, CVPR
    2020, arXiv:2003.08177), after Sun et al. (Perceive Where to Focus, CVPR 2019,
    arXiv:1904.00537).

    Args:
        parts: f, `(n, p, d)`; p must be static.
        visibility: v, `(n, p)`, at least 0.
        other_parts: f', `(m, p, d)`.
        other_visibility: v', `(m, p)`, at least 0.
        whole: `(n, m)`, `|g − g'|`, distances of the global features.

    Returns:
        `(n, m)`, in units of the features.

    Raises:
        InputError: shapes that do not match.

    Example:
        >>> import numpy as np
        >>> parts, others = np.array([[[0.0], [0.0]]]), np.array([[[1.0], [9.0]]])
        >>> full, half = np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]])  # without the legs.
        >>> whole = np.array([[3.0]])
        >>> print(np.array(visible(parts, full, others, half, whole)))  # (3 + 1) / (1 + 1)
        [[2.]]
    """
    parts, other_parts = at_least_float32(parts), at_least_float32(other_parts)
    checks.shapes(
        ONE_MODEL,
        parts=("(n, p, d)", parts.shape),
        visibility=("(n, p)", visibility.shape),
        other_parts=("(m, p, d)", other_parts.shape),
        other_visibility=("(m, p)", other_visibility.shape),
        whole=("(n, m)", whole.shape),
    )
    mine, others = (ops.cast(v, parts.dtype) for v in (visibility, other_visibility))
    total = ops.cast(whole, parts.dtype)
    weight = ops.ones_like(total)
    for part in range(parts.shape[1]):
        shared = mine[:, part, None] * others[None, :, part]
        total = total + shared * euclidean(parts[:, part], other_parts[:, part])
        weight = weight + shared
    return total / weight
