"""Distances between sets of features: tracklets frame by frame."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import Shown, invalid
from keras_reid.nearest.arrays import checked_features, feature_rows

Reduce = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _minimum(d: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.minimum.reduceat(d.min(axis=0), starts)


def _mean(d: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return np.add.reduceat(d.mean(axis=0), starts) / sizes


def _hausdorff(d: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    there = np.minimum.reduceat(d, starts, axis=1).max(axis=0)
    return np.maximum(there, np.maximum.reduceat(d.min(axis=0), starts))


def _mean_min(d: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    there = np.minimum.reduceat(d, starts, axis=1).mean(axis=0)
    return (there + np.add.reduceat(d.min(axis=0), starts) / sizes) / 2


SET_DISTANCES: dict[str, Reduce] = {
    "min": _minimum,
    "mean": _mean,
    "hausdorff": _hausdorff,
    "mean_min": _mean_min,
}


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
        d = source.rows(first, first + size)
        result[i] = SET_DISTANCES[kind](d, starts, sizes)
        first += size
    return result


def reranked_set_distances(
    query: Sequence[np.ndarray],
    gallery: Sequence[np.ndarray],
    kind: str = "mean_min",
    **options: Any,
) -> np.ndarray:
    """Return `reranking.k_reciprocal_from_distances` of set distances: float32 (q, g).

    Args:
        query: q arrays (s, d), the frames of tracklets.
        gallery: g such arrays.
        kind: distance of `set_distances`.
        options: k1, k2 and lambda_value.

    Raises:
        InputError: as `set_distances`, or numbers out of range.

    Example:
        >>> import numpy as np
        >>> query = [np.array([[0.0], [0.1]])]
        >>> gallery = [np.array([[0.2]]), np.array([[0.3], [0.4]]), np.array([[5.0]])]
        >>> reranked_set_distances(query, gallery, k1=2, k2=1)[0].argsort().tolist()
        [0, 1, 2]
    """
    from keras_reid.reranking import k_reciprocal_from_distances

    # The mean distance of a set to itself is not 0, but re-ranking ignores the diagonals.
    qq, gg = (set_distances(side, None, kind) for side in (query, gallery))
    qg = set_distances(query, gallery, kind)
    return k_reciprocal_from_distances(qq, qg, gg, **options).numpy()


def _joined(sets: Sequence[np.ndarray], split: str) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.array([len(part) for part in sets], int)
    if not len(sizes) or not sizes.all():
        received = Shown(f"{len(sizes)} sets, {int((sizes == 0).sum())} of them empty")
        raise invalid(split, "sets of at least one frame", received)
    return checked_features(np.concatenate([np.asarray(s) for s in sets]), 2, split), sizes
