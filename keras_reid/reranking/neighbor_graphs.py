"""Re-rankers that use sparse graphs of neighbors: expansion, propagation, diffusion."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.nearest.arrays import Rows
from keras_reid.nearest.blocks import Progress, in_blocks
from keras_reid.nearest.graph import PAIR_ELEMENTS, FeatureDistances, Size, length, unit
from keras_reid.reranking import inputs, sparse
from keras_reid.reranking.neighbors import nearest

SOLVED = 1e-20  # squared length of the residual of a unit vector


@inputs.reranker
def query_expansion(
    query: Any, gallery: Any, progress: Progress | None = None, k: int = 10, alpha: float = 0.0
) -> Rows:
    """`‖q' − g'‖²` with `f' = unit(Σ_j cos(f, f_j)^α f_j)` over the k nearest, f itself included.

    All images of query and gallery are expanded, in one pass. α = 0 is average query expansion
    (AQE, Chum et al., ICCV 2007); Radenović et al. (TPAMI 2019, arXiv:1711.02512) weight by α = 3.
    Negative cosines count as 0. k = 1 changes only the lengths.
    """
    checks.whole(1, k=k)
    checks.at_least(0, "0 gives equal weights.", alpha=alpha)
    images, queries, index = _neighbors(query, gallery, k, progress)

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
    """`query_expansion` with α = 3."""
    return query_expansion.rows(query, gallery, progress, k, alpha)


@inputs.reranker
def ecn(
    query: Any, gallery: Any, progress: Progress | None = None, k: int = 25, t: int = 3, q: int = 8
) -> Rows:
    """Mean of `r(j, g)` over the expanded neighbors j of p, and of `r(j, p)` over those of g.

    `r(i, j) = −Σ_b [k − pos_i(b)]₊ [k − pos_j(b)]₊` compares two lists of neighbors by cosine,
    pos from 0; the expanded neighbors are the t nearest and the q nearest to each of these,
    `t + t q` in all. A mean of exactly 0 (no shared neighbors) is replaced by the cosine distance,
    which is greater, as in the authors' code.

    Source: Sarfraz et al., CVPR 2018, arXiv:1711.10378.
    """
    checks.whole(1, k=k, t=t, q=q)
    images, queries, index = _neighbors(query, gallery, max(k, t + 1, q + 1), progress)
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

    Source: Zhang et al., 2020, arXiv:2012.07620.
    """
    checks.whole(1, k1=k1, k2=k2)
    checks.whole(0, rounds=rounds)
    checks.within("[0, 1]", lambda_value=lambda_value)
    images, queries, index = _neighbors(query, gallery, max(k1, k2), progress)
    count = length(images, 0)
    lists, near = index[:, :k1], index[:, :k2]
    a = sparse.lists(lists, tf.ones_like(lists, tf.float32), count)
    squares = _cosines_of(images, near) ** 2
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


@inputs.reranker
def diffusion(
    query: Any,
    gallery: Any,
    progress: Progress | None = None,
    k: int = 50,
    gamma: float = 3.0,
    alpha: float = 0.99,
    iterations: int = 20,
) -> Rows:
    """`−F_gq` with `F = (I − α S)⁻¹`, the similarity that has spread over the graph from q.

    `S = D^(−½) A D^(−½)`; A is `max(cos, 0)^γ` between images that are among each other's k
    nearest, the image itself not counted, and D the sums of its rows. The system is solved by so
    many conjugate gradient steps for each query, on all images.

    Source: Iscen et al., CVPR 2017, arXiv:1611.05113; Yang et al., AAAI 2019, arXiv:1811.10907.
    """
    from scipy.sparse import csr_matrix

    checks.whole(1, k=k, iterations=iterations)
    checks.within("(0, 1)", "0.99 is usual.", alpha=alpha)
    checks.at_least(0, "3 is usual.", gamma=gamma)
    if not tf.executing_eagerly():
        raise InputError("Diffusion uses SciPy. Call it outside of a tf.function.")
    images, queries, index = _neighbors(query, gallery, k + 1, progress)
    count = len(images)
    near = index[:, 1:]
    cosines = _cosines_of(images, near).numpy()
    begin = np.arange(count + 1) * near.shape[1]
    weights = (np.maximum(cosines, 0) ** gamma).ravel()
    a = csr_matrix((weights, near.numpy().ravel(), begin), shape=(count, count))
    a = a.minimum(a.T)  # 0 unless each has the other: cosines are the same both ways
    root = 1 / np.sqrt(np.asarray(a.sum(axis=1)).ravel() + 1e-12)
    s = a.multiply(root[:, None]).multiply(root).tocsr()

    def rows(start: int, stop: int) -> np.ndarray:
        sources = np.zeros((count, stop - start))
        sources[np.arange(start, stop), np.arange(stop - start)] = 1
        spread = _conjugate_gradients(s, alpha, sources, iterations)
        return np.array(-spread[queries:].T, np.float32)

    return Rows((queries, count - queries), rows)


def _conjugate_gradients(s: Any, alpha: float, b: np.ndarray, iterations: int) -> np.ndarray:
    """Solve `(I − α S) X = B` for all columns (n, m) at once."""
    x = np.zeros_like(b)
    residual = b.copy()
    direction = residual.copy()
    norms = np.einsum("nm,nm->m", residual, residual)
    for _ in range(iterations):
        open_ = norms > SOLVED
        if not open_.any():
            break
        image = direction - alpha * (s @ direction)
        curvature = np.einsum("nm,nm->m", direction, image)
        step = np.where(open_, norms / np.where(open_, curvature, 1), 0)
        x += step * direction
        residual -= step * image
        new = np.einsum("nm,nm->m", residual, residual)
        direction = residual + np.where(open_, new / np.where(open_, norms, 1), 0) * direction
        norms = new
    return x


def _neighbors(
    query: Any, gallery: Any, k: int, progress: Progress | None
) -> tuple[tf.Tensor, Size, tf.Tensor]:
    """Return all features at length 1, the number of queries, and the k nearest to each."""
    images, queries = inputs.joined(query, gallery)
    images = unit(images)
    return images, queries, nearest(FeatureDistances(images), k, progress).index


def _cosines_of(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
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
