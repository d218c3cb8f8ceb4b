"""Re-ranking by diffusion on the graph of mutual neighbors, with SciPy."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.nearest.arrays import Rows
from keras_reid.nearest.blocks import Progress
from keras_reid.reranking import inputs
from keras_reid.reranking.neighbor_graphs import cosines_of, unit_neighbors

SOLVED = 1e-20  # squared length of the residual of a unit vector


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

    Args:
        query: features (q, d).
        gallery: features (g, d).
        progress: called with the number of images done and of all during the neighbor search.
        k: number of neighbors of each image.
        gamma: exponent of the cosines, at least 0.
        alpha: fraction that spreads along the graph in each step, between 0 and 1.
        iterations: number of conjugate gradient steps.

    Returns:
        Distances (q, g), a float32 array.

    Raises:
        InputError: as `query_expansion`, or a call inside a tf.function.

    Example:
        >>> query, gallery = [[1.0, 0.0]], [[0.8, 0.6], [0.6, 0.8], [0.6, -0.8]]
        >>> diffusion(query, gallery, k=2)[0].argsort().tolist()
        [0, 1, 2]

    Source: Iscen et al., CVPR 2017, arXiv:1611.05113; Yang et al., AAAI 2019, arXiv:1811.10907.
    """
    from scipy.sparse import csr_matrix

    checks.whole(1, k=k, iterations=iterations)
    checks.within("(0, 1)", "0.99 is usual.", alpha=alpha)
    checks.at_least(0, "3 is usual.", gamma=gamma)
    if not tf.executing_eagerly():
        raise InputError("Diffusion uses SciPy. Call it outside of a tf.function.")
    images, queries, index = unit_neighbors(query, gallery, k + 1, progress)
    count = len(images)
    near = index[:, 1:]
    cosines = cosines_of(images, near).numpy()
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
