"""Distances between sets of features: tracklets frame by frame."""

from collections.abc import Sequence

import numpy as np

from keras_reid import checks
from keras_reid.errors import Shown, invalid
from keras_reid.nearest.arrays import checked_features, feature_rows

SET_DISTANCES = ("min", "mean", "hausdorff", "mean_min")


def set_distances(
    query: Sequence[np.ndarray], gallery: Sequence[np.ndarray] | None = None, kind: str = "mean_min"
) -> np.ndarray:
    """Return distances (q, g) between sets A and B of features, from `d_ab = |a − b|`.

    - "min": `min_ab d_ab`;
    - "mean": `mean_ab d_ab`;
    - "hausdorff": `max(max_a min_b d_ab, max_b min_a d_ab)`;
    - "mean_min": `(mean_a min_b d_ab + mean_b min_a d_ab) / 2`.

    Args:
        query: q arrays (s, d), the frames of tracklets, s at least 1.
        gallery: g such arrays; None compares the sets of the query with each other.
        kind: one of the above.

    Returns:
        float32 (q, g), for `rank` and `keras_reid.reranking.k_reciprocal_from_distances`.

    Raises:
        InputError: an unknown kind, no sets, an empty set, or features that are not finite.

    Example:
        >>> import numpy as np
        >>> query, gallery = [np.array([[0.0], [1.0]])], [np.array([[1.0], [2.0]])]
        >>> {kind: set_distances(query, gallery, kind).item() for kind in SET_DISTANCES}
        {'min': 0.0, 'mean': 1.0, 'hausdorff': 1.0, 'mean_min': 0.5}
    """
    checks.one_of(SET_DISTANCES, kind=kind)
    rows, row_sizes = _joined(query, "query")
    columns, sizes = (rows, row_sizes) if gallery is None else _joined(gallery, "gallery")
    starts = np.cumsum(sizes) - sizes
    source = feature_rows(rows, columns)
    result = np.empty((len(row_sizes), len(sizes)), np.float32)
    first = 0
    for i, size in enumerate(row_sizes.tolist()):
        result[i] = _reduced(source.rows(first, first + size), starts, sizes, kind)
        first += size
    return result


def _reduced(d: np.ndarray, starts: np.ndarray, sizes: np.ndarray, kind: str) -> np.ndarray:
    """Return the distances (g,) of one set to g sets.

    Args:
        d: distances of the features (s, n) of both.
        starts: (g,) first columns of the sets.
        sizes: (g,) numbers of their columns.
        kind: as in `set_distances`.
    """
    if kind == "mean":
        return np.add.reduceat(d.mean(axis=0), starts) / sizes
    there, back = np.minimum.reduceat(d, starts, axis=1), d.min(axis=0)
    if kind == "min":
        return there.min(axis=0)
    if kind == "hausdorff":
        return np.maximum(there.max(axis=0), np.maximum.reduceat(back, starts))
    return (there.mean(axis=0) + np.add.reduceat(back, starts) / sizes) / 2


def _joined(sets: Sequence[np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.array([len(part) for part in sets], int)
    if not len(sizes) or not sizes.all():
        received = Shown(f"{len(sizes)} sets, {int((sizes == 0).sum())} of them empty")
        raise invalid(split, "sets of at least one frame", received)
    return checked_features(np.concatenate([np.asarray(s) for s in sets]), 2, split), sizes
