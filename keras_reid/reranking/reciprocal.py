"""k-reciprocal re-ranking (Zhong et al., CVPR 2017, arXiv:1701.08398)."""

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.nearest.arrays import Rows, checked_features
from keras_reid.nearest.blocks import Progress
from keras_reid.nearest.graph import FeatureDistances, KeptDistances, MappedDistances, Size, length
from keras_reid.reranking import inputs
from keras_reid.reranking.jaccard import encodings
from keras_reid.reranking.precomputed import PrecomputedDistances


@inputs.reranker
def k_reciprocal(
    query: Any,
    gallery: Any,
    progress: Progress | None = None,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> Rows:
    """`(1 − λ) d_J + λ D`: distances (q, g) that are small for images with common neighbors.

    D is the squared Euclidean distance divided by the largest of its row, among all N = q + g
    images. N(i, k) are the k + 1 nearest of all images to i, i itself first, equally near ones by
    index; R(i, k) are the images j of N(i, k) with i in N(j, k). R*(i) joins to R(i, k1) each
    R(j, k1/2) of a member j that shares more than two thirds of its own members with R(i, k1); k1/2
    is rounded, halves to even. V_ij is `exp(−D_ij)` on R*(i), 0 elsewhere, divided by the row's
    sum, then the mean of the rows of the first k2 of N(i).
    `d_J = 1 − Σ_j min(V_ij, V_gj) / Σ_j max(V_ij, V_gj)`.

    These are the semantics of the authors' Python code, in float32 instead of float16. Nothing is
    approximated, and no N × N matrix exists: memory grows as N (d + k1²) and q g. The result
    depends on all queries together. By rows, a gallery in a mapped file (`numpy.memmap`) is not
    held: it is read for each block of rows.

    Example:
        >>> query, gallery = [[0.0, 0.0]], [[1.0, 0.0], [0.9, 0.1], [9.0, 9.0], [9.0, 8.0]]
        >>> distances = k_reciprocal(query, gallery, k1=2, k2=1)
        >>> distances[0].argsort().tolist()
        [1, 0, 3, 2]

    Args:
        query: features (q, d).
        gallery: features (g, d).
        progress: called with the images done and N while neighbors are searched.
        k1: number of neighbors of each image, at most all.
        k2: number of encodings that are averaged, that of the image included; 1: no averaging.
        lambda_value: λ, from 0 (Jaccard distances alone) to 1 (D alone).

    Returns:
        Distances (q, g): a float32 array, or a tensor inside a tf.function.

    Raises:
        InputError: features that are not finite 2-D arrays of one width, or other numbers. Inside a
            tf.function, rows that are not finite are infinitely far from all others. The other
            distances do not change.
    """
    _check(k1, k2, lambda_value)
    query, gallery = inputs.checked(query, gallery)
    queries = length(query, 0)
    source: FeatureDistances
    if isinstance(gallery, np.memmap):
        source = MappedDistances(query, gallery)
    else:
        source = KeptDistances(tf.concat([query, gallery], axis=0), queries)
    reranked = _reranked(source, queries, k1, k2, lambda_value, progress)
    return replace(reranked, mapped=isinstance(gallery, np.memmap))


def k_reciprocal_from_distances(
    qq: Any,
    qg: Any,
    gg: Any,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    squared: bool = False,
) -> tf.Tensor:
    """`k_reciprocal` of precomputed distances, such as aligned ones; not inside a tf.function.

    Args:
        qq: distances (q, q), as `evaluation.matrix` returns them. The diagonal is ignored, because
            every image is its own first neighbor.
        qg: distances (q, g).
        gg: distances (g, g); the diagonal is ignored.
        k1: number of neighbors, as in `k_reciprocal`.
        k2: number of averaged encodings.
        lambda_value: λ, from 0 (Jaccard distances alone) to 1 (D of `k_reciprocal` alone, here from
            these distances).
        squared: True if the distances are squared, as `global_local`; otherwise they are squared
            here, as in the authors' code.

    Returns:
        Distances (q, g), a float32 tensor.

    Raises:
        InputError: matrices that do not fit, or hold negative or infinite values.

    Example:
        >>> qq, qg = [[0.0]], [[1.0, 1.1, 9.0]]
        >>> gg = [[0.0, 0.2, 9.0], [0.2, 0.0, 9.0], [9.0, 9.0, 0.0]]
        >>> k_reciprocal_from_distances(qq, qg, gg, k1=2, k2=1).numpy()[0].argsort().tolist()
        [0, 1, 2]
    """
    _check(k1, k2, lambda_value)
    source = PrecomputedDistances(qq, qg, gg, squared)
    reranked = _reranked(source, source.queries, k1, k2, lambda_value)
    return tf.constant(reranked.matrix())


class SparseJaccard:
    """`d_J` of `k_reciprocal` between all images of one set, most of them 1.

    Args:
        features: (n, d).
        k1, k2: as in `k_reciprocal`.
        progress: called with the images done and n while neighbors are searched.

    Raises:
        InputError: as `k_reciprocal`.

    Example:
        >>> x = [[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [9.0, 9.0], [9.1, 9.0]]
        >>> SparseJaccard(x, k1=2, k2=1).within(0.9).nnz  # of 25 distances
        13
    """

    def __init__(self, features: Any, k1: int = 20, k2: int = 6, progress: Progress | None = None):
        _check(k1, k2, 0)
        source = FeatureDistances(tf.constant(checked_features(features, 2, "image")))
        overlaps, _ = encodings(source, k1, k2, progress)
        self._jaccard = Rows((source.size, source.size), overlaps.distances)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return distances of images `start` to `stop` to all: float32 (b, n)."""
        return self._jaccard.rows(start, stop)

    def within(self, threshold: float) -> Any:
        """Return distances of at most `threshold` < 1 as a `scipy.sparse.csr_matrix` (n, n).

        The zeros of the diagonal, and those between images of equal encodings, are stored.
        """
        from scipy.sparse import csr_matrix, vstack

        checks.within("[0, 1)", "At 1, all images are neighbors.", threshold=threshold)
        blocks = []
        for start, distance in self._jaccard.blocks():
            own = np.arange(len(distance))
            distance[own, start + own] = 0
            row, column = np.nonzero(distance <= threshold)
            begin = np.searchsorted(row, np.arange(len(distance) + 1))
            kept = distance[row, column]
            blocks.append(csr_matrix((kept, column, begin), shape=distance.shape))
        return vstack(blocks, format="csr")


def _reranked(
    source: FeatureDistances,
    queries: Size,
    k1: int,
    k2: int,
    lambda_value: float,
    progress: Progress | None = None,
) -> Rows:
    overlaps, largest = encodings(source, k1, k2, progress)
    scale = tf.where(largest > 0, largest, 1)
    count = source.size - queries

    def rows(start: Size, stop: Size) -> tf.Tensor:
        jaccard = overlaps.distances(start, stop)[:, queries:]
        if lambda_value == 0:
            return jaccard
        squared = source.rows(start, stop, queries)[:, :count]
        original = tf.maximum(squared, 0) / scale[start:stop, None]
        return (1 - lambda_value) * jaccard + lambda_value * original

    return Rows((queries, count), rows)


def _check(k1: int, k2: int, lambda_value: float) -> None:
    checks.whole(1, k1=k1, k2=k2)
    checks.within("[0, 1]", lambda_value=lambda_value)
