"""Re-rankers that use sparse graphs of neighbors: expansion and propagation."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.nearest.arrays import Rows
from keras_reid.nearest.blocks import Progress, in_blocks
from keras_reid.nearest.graph import PAIR_ELEMENTS, FeatureDistances, Size, length, unit
from keras_reid.reranking import inputs, sparse
from keras_reid.reranking.neighbors import nearest


@inputs.reranker
def query_expansion(
    query: Any, gallery: Any, progress: Progress | None = None, k: int = 10, alpha: float = 0.0
) -> Rows:
    """`‖q' − g'‖²` with `f' = unit(Σ_j cos(f, f_j)^α f_j)` over the k nearest, f itself included.

    All images of query and gallery are expanded, in one pass. Negative cosines count as 0.

    Args:
        query: features (q, d).
        gallery: features (g, d).
        progress: called with the number of images done and of all during the neighbor search.
        k: number of images that are averaged, the image included; 1 changes only the lengths.
        alpha: exponent of the weights; 0 gives equal weights, 3 is usual otherwise.

    Returns:
        Distances (q, g): a float32 array, or a tensor inside a tf.function.

    Raises:
        InputError: features that are not finite 2-D arrays of one width, or numbers out of range.

    Example:
        >>> query, gallery = [[1.0, 0.0]], [[0.8, 0.6], [0.6, 0.8], [0.6, -0.8]]
        >>> print(query_expansion(query, gallery, k=2)[0].round(2))
        [0.21 0.21 0.59]

    Source: Chum et al., ICCV 2007 (AQE, α = 0); Radenović et al., TPAMI 2019, arXiv:1711.02512.
    """
    checks.whole(1, k=k)
    checks.at_least(0, "0 gives equal weights.", alpha=alpha)
    images, queries, index = unit_neighbors(query, gallery, k, progress)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        near = tf.gather(images, index[start:stop])  # (b, k, d)
        cosine = tf.einsum("bd,bkd->bk", images[start:stop], near)
        weight = tf.maximum(cosine, 0) ** alpha
        return (tf.einsum("bk,bkd->bd", weight, near),)

    width, count = images.shape[1], length(images, 0)
    size = tf.maximum(1, PAIR_ELEMENTS // (width * tf.shape(index)[1]))
    (expanded,) = in_blocks(work, count, size, (tf.TensorSpec([None, width], tf.float32),))
    source = FeatureDistances(unit(expanded))

    def rows(start: Size, stop: Size) -> tf.Tensor:
        squared = source.rows(start, stop, queries)
        return tf.maximum(squared[:, : count - queries], 0)

    return Rows((queries, count - queries), rows)


@inputs.reranker
def alpha_query_expansion(
    query: Any, gallery: Any, progress: Progress | None = None, k: int = 10, alpha: float = 3.0
) -> Rows:
    """`query_expansion` with α = 3, so that nearer images have larger weights.

    Args:
        query: features (q, d).
        gallery: features (g, d).
        progress: as in `query_expansion`.
        k: number of images that are averaged, the image included.
        alpha: exponent of the weights.

    Returns:
        Distances (q, g): a float32 array, or a tensor inside a tf.function.

    Raises:
        InputError: features that are not finite 2-D arrays of one width, or numbers out of range.

    Example:
        >>> query, gallery = [[1.0, 0.0]], [[0.8, 0.6], [0.6, 0.8], [0.6, -0.8]]
        >>> print(alpha_query_expansion(query, gallery, k=2)[0].round(2))
        [0.31 0.33 0.9 ]

    Source: Radenović et al., TPAMI 2019, arXiv:1711.02512.
    """
    return query_expansion.rows(query, gallery, progress, k, alpha)


@inputs.reranker
def ecn(
    query: Any, gallery: Any, progress: Progress | None = None, k: int = 25, t: int = 3, q: int = 8
) -> Rows:
    """Mean of `r(j, g)` and `r(i, p)`, for the expanded neighbors j of query p, and i of image g.

    `r(i, j) = −Σ_b [k − pos_i(b)]₊ [k − pos_j(b)]₊` compares two lists of neighbors by cosine,
    pos from 0; the expanded neighbors are the t nearest and the q nearest to each of these,
    `t + t q` in all. A mean of exactly 0 (no shared neighbors) is replaced by the cosine distance,
    which is greater, as in the authors' code.

    Args:
        query: features (q, d).
        gallery: features (g, d).
        progress: called with the number of images done and of all during the neighbor search.
        k: length of the compared lists of neighbors.
        t: number of nearest images that are expanded.
        q: number of images nearest to each of these.

    Returns:
        Distances (q, g): a float32 array, or a tensor inside a tf.function.

    Raises:
        InputError: features that are not finite 2-D arrays of one width, numbers out of range, or
            one image in all.

    Example:
        >>> query, gallery = [[1.0, 0.0]], [[0.8, 0.6], [0.6, 0.8], [0.6, -0.8]]
        >>> ecn(query, gallery, k=2, t=1, q=1)[0].argsort().tolist()
        [0, 1, 2]

    Source: Sarfraz et al., CVPR 2018, arXiv:1711.10378.
    """
    checks.whole(1, k=k, t=t, q=q)
    images, queries, index = unit_neighbors(query, gallery, max(k, t + 1, q + 1), progress)
    count = length(images, 0)
    if isinstance(count, int) and count < 2:
        raise InputError("Re-ranking by ecn requires at least two images, got one.")
    lists = index[:, :k]
    weight = tf.cast(k - tf.range(tf.shape(lists)[1]), tf.float32)
    w = sparse.lists(lists, tf.broadcast_to(weight, tf.shape(lists)), count)
    near, next_to = index[:, 1 : t + 1], index[:, : q + 1]
    # E = T (I + Q): the t nearest, and those with the q nearest to each.
    expanded = tf.shape(near)[1] * tf.shape(next_to)[1]
    fraction = tf.fill(tf.shape(near), 1 / (2 * tf.cast(expanded, tf.float32)))
    around = sparse.lists(next_to, tf.ones_like(next_to, tf.float32), count)
    u = sparse.product(sparse.lists(near, fraction, count), sparse.product(around, w))
    sides = [sparse.rows(side) for side in (w, u)]
    galleries = [_transposed(side, queries, count) for side in sides]
    cosine = _cosine(images, queries)

    def rows(start: Size, stop: Size) -> tf.Tensor:
        w, u = (sparse.slice_rows(side, start, stop, count) for side in sides)
        w_gallery, u_gallery = (sparse.whole(side, count - queries) for side in galleries)
        shared = sparse.dense(sparse.product(u, w_gallery))
        shared += sparse.dense(sparse.product(w, u_gallery))
        return tf.where(shared == 0, 1 - cosine(start, stop), -shared)

    return Rows((queries, count - queries), rows)


@inputs.reranker
def gnn(
    query: Any,
    gallery: Any,
    progress: Progress | None = None,
    k1: int = 26,
    k2: int = 7,
    rounds: int = 2,
    lambda_value: float = 0.3,
) -> Rows:
    """`1 − (1 − λ) A_q · A_g − λ cos(q, g)` of neighborhoods that have propagated.

    A is 1 at the k1 nearest by cosine, the image included. In each round `A ← A + Aᵀ`, then
    `A_i ← Σ_j cos²(i, j) A_j` over the k2 nearest, and rows are brought to length 1.

    Args:
        query: features (q, d).
        gallery: features (g, d).
        progress: called with the number of images done and of all during the neighbor search.
        k1: number of neighbors in A.
        k2: number of neighbors in the sum of each round.
        rounds: number of rounds.
        lambda_value: λ, the weight of the original cosine, from 0 to 1.

    Returns:
        Distances (q, g): a float32 array, or a tensor inside a tf.function.

    Raises:
        InputError: features that are not finite 2-D arrays of one width, or numbers out of range.

    Example:
        >>> query, gallery = [[1.0, 0.0]], [[0.8, 0.6], [0.6, 0.8], [0.6, -0.8]]
        >>> print(gnn(query, gallery, k1=3, k2=2)[0].round(2))
        [0.06 0.12 0.18]

    Source: Zhang et al., 2020, arXiv:2012.07620.
    """
    checks.whole(1, k1=k1, k2=k2)
    checks.whole(0, rounds=rounds)
    checks.within("[0, 1]", lambda_value=lambda_value)
    images, queries, index = unit_neighbors(query, gallery, max(k1, k2), progress)
    count = length(images, 0)
    lists, near = index[:, :k1], index[:, :k2]
    a = sparse.lists(lists, tf.ones_like(lists, tf.float32), count)
    squares = cosines_of(images, near) ** 2
    # S (A + Aᵀ) = [S S] · (A above Aᵀ)
    twice = tf.concat([near, near + count], axis=1), tf.concat([squares, squares], axis=1)
    s = sparse.lists(*twice, 2 * count)
    for _ in range(rounds):
        both = sparse.above(sparse.rows(a), sparse.rows(sparse.transpose(a)), count)
        a = _unit_rows(sparse.product(s, both), count)
    of_all = sparse.rows(a)
    gallery_rows = _transposed(of_all, queries, count)
    cosine = _cosine(images, queries)

    def rows(start: Size, stop: Size) -> tf.Tensor:
        own = sparse.slice_rows(of_all, start, stop, count)
        similar = sparse.dense(sparse.product(own, sparse.whole(gallery_rows, count - queries)))
        return 1 - (1 - lambda_value) * similar - lambda_value * cosine(start, stop)

    return Rows((queries, count - queries), rows)


def _transposed(a: sparse.CsrRows, queries: Size, count: Size) -> sparse.CsrRows:
    """Return the gallery rows of an (n, n) matrix as columns (n, g)."""
    return sparse.rows(sparse.transpose(sparse.slice_rows(a, queries, count, count)))


def _unit_rows(a: sparse.Matrix, count: Size) -> sparse.Matrix:
    """Return rows of length 1; zero stays zero."""
    own = sparse.rows(a)
    row = sparse.row_numbers(own)
    lengths = tf.sqrt(tf.math.unsorted_segment_sum(own.value * own.value, row, count))
    value = tf.math.divide_no_nan(own.value, tf.gather(lengths, row))
    return sparse.matrix(row, own.column, value, tf.stack([count, count]))


def unit_neighbors(
    query: Any, gallery: Any, k: int, progress: Progress | None
) -> tuple[tf.Tensor, Size, tf.Tensor]:
    """Return all features at length 1, the number of queries, and the k nearest to each."""
    images, queries = inputs.joined(query, gallery)
    images = unit(images)
    return images, queries, nearest(FeatureDistances(images), k, progress).index


def cosines_of(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """Return cosines (n, k) of each image to the images of its row."""

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        near = tf.gather(images, index[start:stop])
        return (tf.einsum("bd,bkd->bk", images[start:stop], near),)

    size = tf.maximum(1, PAIR_ELEMENTS // (images.shape[1] * tf.maximum(1, tf.shape(index)[1])))
    like = (tf.TensorSpec([None, None], tf.float32),)
    return in_blocks(work, length(index, 0), size, like)[0]


def _cosine(images: tf.Tensor, queries: Size) -> Callable[[Size, Size], tf.Tensor]:
    gallery = images[queries:]
    return lambda start, stop: tf.matmul(images[start:stop], gallery, transpose_b=True)
