"""Rows of aligned distances between images cut into stripes, alone and beside global ones."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from keras_reid.evaluation.rows import FeatureRows, Rows

# Images compared at a time: up to so many queries, and gallery images that make eight million cells
# with them, 32 MiB. Quarters of that took 1.5 times as long, for the products of smaller matrices.
QUERIES = 512
CELLS = 2**23
STEP = 64  # numbers of queries are rounded up to a multiple, so that few shapes are compiled


class AlignedRows:
    """`distances.aligned` of stripes (q, s, d) and (g, t, d), in float32.

    The cells are expanded to `|f|² + |g|² − 2f·g`, whose rounding is about 1e-7 of `|f|² + |g|²`:
    stripes of length 1 that are nearer than 0.003 count as equal, so that an image and its copy
    have the same distances, and beyond that a cell is right to 1e-4. `keras_reid.distances` is
    exact, but multiplies in double precision, and prepares both sides anew in each call.
    """

    name, reranking = "local", "none"

    def __init__(self, query: np.ndarray, gallery: np.ndarray):
        self.query, self.stripes = query, gallery.shape[1]
        self.shape = len(query), len(gallery)
        width = max(1, CELLS // (QUERIES * query.shape[1] * self.stripes))
        width = min(width, max(1, len(gallery)))
        self.blocks = [
            (first, _stripes_first(gallery[first : first + width], width))
            for first in range(0, len(gallery), width)
        ]

    def rows(self, start: int, stop: int) -> np.ndarray:
        query = self.query[start:stop]
        result = np.empty((len(query), self.shape[1]), np.float32)
        size = min(QUERIES, -(-len(query) // STEP) * STEP)
        for first in range(0, len(query), QUERIES):
            f = _stripes_first(query[first : first + QUERIES], size)
            for column, g in self.blocks:
                aligned = _aligned()(f, g, query.shape[1], self.stripes).numpy()
                block = result[first : first + size, column : column + aligned.shape[1]]
                block[:] = aligned[: block.shape[0], : block.shape[1]]
        return result


class SummedRows:
    """`|x/|x| − y/|y||² + S` of global features and aligned stripes: DMLI of AlignedReID++.

    Luo et al., Pattern Recognition 94 (2019).
    """

    name, reranking = "global_local", "none"

    def __init__(self, whole: FeatureRows, local: Rows):
        self.whole, self.local = whole, local

    @property
    def shape(self) -> tuple[int, int]:
        return self.whole.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.whole.squared(start, stop) + self.local.rows(start, stop)


class VisibleRows:
    """`(|g − g'| + Σ_p v_p v'_p |f_p − f'_p|) / (1 + Σ_p v_p v'_p)` of unit vectors.

    As `distances.visible`, in float32 and with the gallery prepared once. Both distances are of
    unit vectors, in [0, 2].
    """

    name, reranking = "visible", "none"

    def __init__(self, query: Mapping[str, np.ndarray], gallery: Mapping[str, np.ndarray]):
        self.visibility = query["visibility"], gallery["visibility"]
        self.parts = [
            FeatureRows(query["parts"][:, p], gallery["parts"][:, p], "cosine")
            for p in range(query["parts"].shape[1])
        ]
        self.whole = FeatureRows(query["global"], gallery["global"], "cosine")

    @property
    def shape(self) -> tuple[int, int]:
        return self.whole.shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        query, gallery = self.visibility[0][start:stop], self.visibility[1]
        total = np.sqrt(np.maximum(self.whole.squared(start, stop), 0))
        weight = np.ones_like(total)
        for p, part in enumerate(self.parts):
            shared = query[:, p, None] * gallery[:, p]
            total += shared * np.sqrt(np.maximum(part.squared(start, stop), 0))
            weight += shared
        return total / weight


def _stripes_first(images: np.ndarray, size: int) -> Any:
    """The stripes `(s · size, d)`, filled up with images of nothing: one shape is compiled once."""
    import tensorflow as tf

    filled = np.pad(images, ((0, size - len(images)), (0, 0), (0, 0)))
    return tf.constant(filled.transpose(1, 0, 2).reshape(-1, images.shape[2]))


@cache
def _aligned() -> Any:
    """Stripes `(s · n, d)`, `(t · m, d)` and the numbers s and t → `(n, m)`, compiled."""
    import tensorflow as tf

    from keras_reid.distances import points, stripes

    def aligned(f: tf.Tensor, g: tf.Tensor, s: int, t: int) -> tf.Tensor:
        cells = stripes.saturated(tf.sqrt(points.squared_gram(f, g)))
        return stripes.shortest_path(tf.reshape(cells, (s, f.shape[0] // s, t, g.shape[0] // t)))

    return tf.function(aligned, jit_compile=True, autograph=False)
