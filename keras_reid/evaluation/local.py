"""Rows of aligned distances between images cut into stripes, alone and beside global ones."""

from functools import cache
from typing import Any

import numpy as np

from keras_reid.evaluation.rows import DistanceRows

# Images compared at a time: 64 queries with as many gallery images as make a million cells, which
# stay in the processor's cache. Larger and smaller blocks took up to twice the time.
QUERIES = 64
CELLS = 2**20


class AlignedRows:
    """`distances.aligned` of stripes (q, s, d) and (g, t, d), in float32.

    The cells are expanded to `|f|² + |g|² − 2f·g`, whose rounding is about 1e-7 of `|f|² + |g|²`:
    stripes of length 1 that are nearer than 0.003 count as equal, so that an image and its copy
    have the same distances, and beyond that a cell is right to 1e-4. `keras_reid.distances` is
    exact, but multiplies in double precision.
    """

    distance = "local"

    def __init__(self, query: np.ndarray, gallery: np.ndarray):
        self.query, self.gallery = query, gallery
        self.width = max(1, CELLS // (QUERIES * query.shape[1] * gallery.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query), len(self.gallery)

    def rows(self, start: int, stop: int) -> np.ndarray:
        query = self.query[start:stop]
        result = np.empty((len(query), len(self.gallery)), np.float32)
        for first in range(0, len(query), QUERIES):
            some = query[first : first + QUERIES]
            for column in range(0, len(self.gallery), self.width):
                others = self.gallery[column : column + self.width]
                cells = _aligned()(_filled(some, QUERIES), _filled(others, self.width)).numpy()
                block = result[first : first + QUERIES, column : column + self.width]
                block[:] = cells[: len(some), : len(others)]
        return result


class SummedRows:
    """`|x/|x| − y/|y||² + S` of global features and aligned stripes: DMLI of AlignedReID++.

    Luo et al., Pattern Recognition 94 (2019).
    """

    distance = "global_local"

    def __init__(self, global_rows: DistanceRows, local_rows: DistanceRows):
        self.parts = global_rows, local_rows

    @property
    def shape(self) -> tuple[int, int]:
        return self.parts[0].shape

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self.parts[0].rows(start, stop) + self.parts[1].rows(start, stop)


def _filled(images: np.ndarray, size: int) -> np.ndarray:
    """Images of nothing at the end: one shape is compiled once."""
    missing = size - len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0))) if missing else images


@cache
def _aligned() -> Any:
    """`(n, s, d), (m, t, d) → (n, m)`, compiled."""
    import tensorflow as tf

    from keras_reid.distances import stripes

    def aligned(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        f, g = stripes.stripes_first(x), stripes.stripes_first(y)
        scale = tf.reduce_sum(f * f, axis=1)[:, None] + tf.reduce_sum(g * g, axis=1)
        squared = scale - 2 * tf.matmul(f, g, transpose_b=True)
        squared = tf.where(squared <= 32 * np.finfo(np.float32).eps * scale, 0.0, squared)
        cells = stripes.saturated(tf.sqrt(squared))
        return stripes.shortest_path(
            tf.reshape(cells, (x.shape[1], x.shape[0], y.shape[1], y.shape[0]))
        )

    return tf.function(aligned, jit_compile=True, autograph=False)
