"""Re-ranking by sparse graphs of neighbours: cross neighbourhoods, propagation, diffusion."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.reranking import inputs
from keras_reid.reranking.blocks import Progress, in_blocks
from keras_reid.reranking.neighbours import PAIR_ELEMENTS, FeatureDistances, Size, nearest
from keras_reid.reranking.rows import RerankedRows

SOLVED = 1e-20  # squared length of what is left of a unit vector


def query_expansion_rows(
    query: Any, gallery: Any, progress: Progress | None = None, k: int = 10, alpha: float = 0.0
) -> RerankedRows:
    """`‖q' − g'‖²` with `f' = unit(Σ_j cos(f, f_j)^α f_j)` over the k nearest, f itself included.

    All images of query and gallery are expanded, in one pass. α = 0 is average query expansion
    (AQE, Chum et al., ICCV 2007); Radenović et al. (TPAMI 2019, arXiv:1711.02512) weight by α = 3.
    Negative cosines count as 0. k = 1 changes nothing but lengths.
    """
    inputs.at_least(1, k=k)
    if not alpha >= 0:
        raise InputError(f"alpha is not negative, received {alpha}: 0 weights all alike")
    images, queries, index = _neighbours(query, gallery, k, progress)

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        near = tf.gather(images, index[start:stop])  # (b, k, d)
        cosine = tf.einsum("bd,bkd->bk", images[start:stop], near)
        weight = tf.maximum(cosine, 0) ** alpha
        return (tf.einsum("bk,bkd->bd", weight, near),)

    width = images.shape[1]
    size = max(1, PAIR_ELEMENTS // (width * index.shape[1]))
    (expanded,) = in_blocks(work, len(images), size, (tf.TensorSpec([None, width], tf.float32),))
    source = FeatureDistances(_unit(expanded))

    def rows(start: int, stop: int) -> tf.Tensor:
        squared = source.rows(start, stop, queries)
        return tf.maximum(squared[:, : len(images) - queries], 0)

    return RerankedRows((queries, len(images) - queries), rows)


def ecn_rows(
    query: Any, gallery: Any, progress: Progress | None = None, k: int = 25, t: int = 3, q: int = 8
) -> RerankedRows:
    """Mean of `r(j, g)` over the expanded neighbours j of p, and of `r(j, p)` over those of g.

    `r(i, j) = −Σ_b [k − pos_i(b)]₊ [k − pos_j(b)]₊` compares two lists of neighbours by cosine,
    pos from 0; the expanded neighbours are the t nearest and the q nearest to each of these,
    `t + t q` in all. Where the mean is exactly 0 nothing is shared, and the cosine distance, which
    is greater, takes its place, as in the authors' code.

    Source: Sarfraz et al., CVPR 2018, arXiv:1711.10378.
    """
    from scipy.sparse import csr_matrix

    inputs.at_least(1, k=k, t=t, q=q)
    images, queries, index = _neighbours(query, gallery, max(k, t + 1, q + 1), progress)
    count = len(images)
    if count < 2:
        raise InputError("cross neighbourhoods need two images or more: received one")
    lists = index[:, :k].numpy()
    weight = np.broadcast_to(k - np.arange(lists.shape[1], dtype=np.float32), lists.shape)
    w = _graph(lists, weight, count)
    near = index[:, 1 : t + 1].numpy()
    next_to = index[:, 1 : q + 1].numpy()[near].reshape(count, -1)
    expanded = np.concatenate([near, next_to], axis=1)
    u = _graph(expanded, np.full(expanded.shape, 1 / (2 * expanded.shape[1]), np.float32), count)
    u = csr_matrix(u @ w)
    w_gallery, u_gallery = w[queries:].T.tocsr(), u[queries:].T.tocsr()
    cosine = _cosine(images, queries)

    def rows(start: int, stop: int) -> np.ndarray:
        shared = u[start:stop] @ w_gallery + w[start:stop] @ u_gallery
        shared = shared.toarray()
        return np.where(shared == 0, 1 - cosine(start, stop), -shared)

    return RerankedRows((queries, count - queries), rows)


def gnn_rows(
    query: Any,
    gallery: Any,
    progress: Progress | None = None,
    k1: int = 26,
    k2: int = 7,
    rounds: int = 2,
    lambda_value: float = 0.3,
) -> RerankedRows:
    """`1 − (1 − λ) A_q · A_g − λ cos(q, g)` of neighbourhoods that have propagated.

    A is 1 at the k1 nearest by cosine, the image included. In each round `A ← A + Aᵀ`, then
    `A_i ← Σ_j cos²(i, j) A_j` over the k2 nearest, and rows are brought to length 1.

    Source: Zhang et al., 2020, arXiv:2012.07620.
    """
    inputs.at_least(1, k1=k1, k2=k2)
    inputs.at_least(0, rounds=rounds)
    inputs.share("lambda_value", lambda_value)
    images, queries, index = _neighbours(query, gallery, max(k1, k2), progress)
    count = len(images)
    lists = index[:, :k1].numpy()
    a = _graph(lists, np.ones(lists.shape, np.float32), count)
    near = index[:, :k2].numpy()
    s = _graph(near, _cosines_of(images, near) ** 2, count)
    for _ in range(rounds):
        a = s @ (a + a.T)
        lengths = np.sqrt(np.asarray(a.multiply(a).sum(axis=1)))
        a = a.multiply(1 / np.where(lengths > 0, lengths, 1)).tocsr()
    a = a.astype(np.float32)
    a_gallery = a[queries:].T.tocsr()
    cosine = _cosine(images, queries)

    def rows(start: int, stop: int) -> np.ndarray:
        similar = (a[start:stop] @ a_gallery).toarray()
        return 1 - (1 - lambda_value) * similar - lambda_value * cosine(start, stop)

    return RerankedRows((queries, count - queries), rows)


def diffusion_rows(
    query: Any,
    gallery: Any,
    progress: Progress | None = None,
    k: int = 50,
    gamma: float = 3.0,
    alpha: float = 0.99,
    iterations: int = 20,
) -> RerankedRows:
    """`−F_gq` with `F = (I − α S)⁻¹`, the similarity that has spread over the graph from q.

    `S = D^(−½) A D^(−½)`; A is `max(cos, 0)^γ` between images that are among each other's k
    nearest, the image itself not counted, and D the sums of its rows. The system is solved by so
    many conjugate gradient steps for each query, on all images.

    Source: Iscen et al., CVPR 2017, arXiv:1611.05113; Yang et al., AAAI 2019, arXiv:1811.10907.
    """
    inputs.at_least(1, k=k, iterations=iterations)
    if not 0 < alpha < 1 or not gamma >= 0:
        raise InputError(
            f"diffusion needs alpha between 0 and 1 and gamma not negative, received {alpha} and "
            f"{gamma}: 0.99 and 3 are usual"
        )
    images, queries, index = _neighbours(query, gallery, k + 1, progress)
    count = len(images)
    near = index[:, 1:].numpy()
    a = _graph(near, np.maximum(_cosines_of(images, near), 0) ** gamma, count)
    a = a.minimum(a.T)  # 0 unless each has the other: cosines are the same both ways
    root = 1 / np.sqrt(np.asarray(a.sum(axis=1)).ravel() + 1e-12)
    s = a.multiply(root[:, None]).multiply(root).tocsr()

    def rows(start: int, stop: int) -> np.ndarray:
        sources = np.zeros((count, stop - start))
        sources[np.arange(start, stop), np.arange(stop - start)] = 1
        return -_conjugate_gradients(s, alpha, sources, iterations)[queries:].T

    return RerankedRows((queries, count - queries), rows)


def _conjugate_gradients(s: Any, alpha: float, b: np.ndarray, iterations: int) -> np.ndarray:
    """X of `(I − α S) X = B`, all columns (n, m) at once."""
    x = np.zeros_like(b)
    residual = b.copy()
    direction = residual.copy()
    norms = np.einsum("nm,nm->m", residual, residual)
    for _ in range(iterations):
        going = norms > SOLVED
        if not going.any():
            break
        image = direction - alpha * (s @ direction)
        curvature = np.einsum("nm,nm->m", direction, image)
        step = np.where(going, norms / np.where(going, curvature, 1), 0)
        x += step * direction
        residual -= step * image
        new = np.einsum("nm,nm->m", residual, residual)
        direction = residual + np.where(going, new / np.where(going, norms, 1), 0) * direction
        norms = new
    return x


def _neighbours(
    query: Any, gallery: Any, k: int, progress: Progress | None
) -> tuple[tf.Tensor, int, tf.Tensor]:
    """All features at length 1, the number of queries, and the k nearest to each."""
    images, queries = inputs.joined(query, gallery)
    images = _unit(images)
    return images, int(queries), nearest(FeatureDistances(images), k, progress).index


def _graph(index: np.ndarray, value: np.ndarray, count: int) -> Any:
    """`value[i, a]` from i to `index[i, a]`, where they meet summed: (n, n)."""
    from scipy.sparse import csr_matrix

    begin = np.arange(count + 1) * index.shape[1]
    return csr_matrix((value.ravel(), index.ravel(), begin), shape=(count, count))


def _cosines_of(images: tf.Tensor, index: np.ndarray) -> np.ndarray:
    """Of each image to those of its row: (n, k)."""

    def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
        near = tf.gather(images, index[start:stop])
        return (tf.einsum("bd,bkd->bk", images[start:stop], near),)

    size = max(1, PAIR_ELEMENTS // (images.shape[1] * max(1, index.shape[1])))
    like = (tf.TensorSpec([None, None], tf.float32),)
    return in_blocks(work, len(index), size, like)[0].numpy()


def _cosine(images: tf.Tensor, queries: int) -> Any:
    gallery = images[queries:]

    def rows(start: int, stop: int) -> np.ndarray:
        return tf.matmul(images[start:stop], gallery, transpose_b=True).numpy()

    return rows


def _unit(x: tf.Tensor) -> tf.Tensor:
    """Rows of length 1; zero stays zero."""
    x = tf.math.divide_no_nan(x, tf.reduce_max(tf.abs(x), axis=1, keepdims=True))
    return tf.math.divide_no_nan(x, tf.norm(x, axis=1, keepdims=True))
