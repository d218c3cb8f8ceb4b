"""Rows of aligned distances between stripes of images, alone and with global distances."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from keras_reid.nearest.arrays import Comparison, Rows

# Number of queries compared at a time, with as many gallery images as make eight million cells, 32
# MiB. Quarters of that took 1.5 times as long, because the products of matrices are smaller.
QUERIES = 512
CELLS = 2**23
STEP = 64  # numbers of queries are rounded up to a multiple, so that few shapes are compiled


def aligned(query: np.ndarray, gallery: np.ndarray) -> Rows:
    """Return `distances.aligned` of stripes (q, s, d) and (g, t, d), in float32.

    The cells are expanded to `|f|² + |g|² − 2f·g`, with a rounding error of about 1e-7 of
    `|f|² + |g|²`. Stripes of length 1 nearer than 0.003 count as equal, so that an image and its
    copy have the same distances; other cells are accurate to 1e-4. `keras_reid.distances` is exact,
    but multiplies in double precision, and prepares both sides in each call.
    """
    (s, t), count = (query.shape[1], gallery.shape[1]), len(gallery)
    width = min(max(1, CELLS // (QUERIES * s * t)), max(1, count))
    blocks = [
        (first, _stripes_first(gallery[first : first + width], width))
        for first in range(0, count, width)
    ]

    def rows(start: int, stop: int) -> np.ndarray:
        part = query[start:stop]
        result = np.empty((len(part), count), np.float32)
        size = min(QUERIES, -(-len(part) // STEP) * STEP)
        for first in range(0, len(part), QUERIES):
            f = _stripes_first(part[first : first + QUERIES], size)
            for column, g in blocks:
                distance = _aligned()(f, g, s, t).numpy()
                block = result[first : first + size, column : column + distance.shape[1]]
                block[:] = distance[: block.shape[0], : block.shape[1]]
        return result

    return Rows((len(query), count), rows, "local")


def summed(query: np.ndarray, gallery: np.ndarray, local: Rows) -> Rows:
    """Return `|x/|x| − y/|y||² + S` for global features x and y and the aligned distance S.

    This is the distance of AlignedReID++ (Luo et al., Pattern Recognition 94, 2019) with DMLI, its
    dynamic alignment of stripes.

    Args:
        query: global features (q, d).
        gallery: global features (g, d).
        local: distances S of the stripes, see `aligned`.
    """
    whole = Comparison(query, gallery, unit_length=True)
    return Rows(whole.shape, lambda a, b: whole.squared(a, b) + local.rows(a, b), "global_local")


def visible(query: Mapping[str, np.ndarray], gallery: Mapping[str, np.ndarray]) -> Rows:
    """Return `(|g − g'| + Σ_p v_p v'_p |f_p − f'_p|) / (1 + Σ_p v_p v'_p)` of unit vectors.

    As `distances.visible`, in float32 and with the gallery prepared once. Both distances are of
    unit vectors, in [0, 2].
    """
    whole = Comparison(query["global"], gallery["global"], unit_length=True)
    parts = [
        Comparison(query["parts"][:, p], gallery["parts"][:, p], unit_length=True)
        for p in range(query["parts"].shape[1])
    ]

    def rows(start: int, stop: int) -> np.ndarray:
        shown = query["visibility"][start:stop]
        total = np.sqrt(np.maximum(whole.squared(start, stop), 0))
        weight = np.ones_like(total)
        for p, part in enumerate(parts):
            shared = shown[:, p, None] * gallery["visibility"][:, p]
            total += shared * np.sqrt(np.maximum(part.squared(start, stop), 0))
            weight += shared
        return total / weight

    return Rows(whole.shape, rows, "visible")


def _stripes_first(images: np.ndarray, size: int) -> Any:
    """Return the stripes `(s · size, d)`, padded with zeros, so that one shape is compiled once."""
    import tensorflow as tf

    filled = np.pad(images, ((0, size - len(images)), (0, 0), (0, 0)))
    return tf.constant(filled.transpose(1, 0, 2).reshape(-1, images.shape[2]))


@cache
def _aligned() -> Any:
    """Return the compiled function from stripes `(s · n, d)`, `(t · m, d)`, s and t to `(n, m)`."""
    import tensorflow as tf

    from keras_reid.distances import points, stripes

    def aligned(f: tf.Tensor, g: tf.Tensor, s: int, t: int) -> tf.Tensor:
        cells = stripes.saturated(tf.sqrt(points.squared_gram(f, g)))
        return stripes.shortest_path(tf.reshape(cells, (s, f.shape[0] // s, t, g.shape[0] // t)))

    return tf.function(aligned, jit_compile=True, autograph=False)
