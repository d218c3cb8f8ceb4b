"""Exact nearest rows by blocked matrix products, in two stages."""

from functools import cache
from typing import Any

import numpy as np

# Scores of one block: 128 MiB. Products of fewer queries are slower.
QUERIES = 256
ROWS = 2**17
GROUP = 64
COMPONENTS = 2**24  # gathered at a time to measure what was found
LEFT_OVER = -1


class Vectors:
    """Embeddings (n, d) in blocks, to be searched, added to and removed from."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.blocks: list[Any] = []  # (m, d), tensors once they were looked into
        self.biases: list[np.ndarray] = []  # -|y|²/2 of their rows

    def __len__(self) -> int:
        return sum(map(len, self.biases))

    def append(self, x: np.ndarray) -> None:
        """Rows (m, d) behind the others.

        Blocks that are no larger are joined with them, so that each row is copied a few times at
        most however many come at once, and few blocks are small.
        """
        parts = [x]
        while self.blocks and len(self.biases[-1]) <= min(ROWS - 1, sum(map(len, parts))):
            parts.insert(0, np.asarray(self.blocks.pop()))
            self.biases.pop()
        self._put(np.concatenate(parts))

    def keep(self, kept: np.ndarray) -> None:
        """Drops the rows where `kept` (n,) is false."""
        parts = [
            np.asarray(block)[mask]
            for block, mask in zip(self.blocks, self._split(kept), strict=True)
        ]
        self.blocks, self.biases = [], []
        self._put(np.concatenate(parts))

    def _put(self, x: np.ndarray) -> None:
        for start in range(0, len(x), ROWS):
            block = x[start : start + ROWS]
            self.blocks.append(block)
            self.biases.append(-0.5 * np.einsum("nd,nd->n", block, block))

    def _tensors(self) -> list[Any]:
        """The blocks as tensors: who only counts rows never waits for TensorFlow."""
        import tensorflow as tf

        with tf.device("CPU"):
            self.blocks = [b if tf.is_tensor(b) else tf.constant(b) for b in self.blocks]
        return self.blocks

    def take(self, index: np.ndarray) -> np.ndarray:
        """Rows of an index of any shape: (…, d)."""
        result = np.empty((*index.shape, self.width), np.float32)
        import tensorflow as tf

        starts = self._starts
        owner = np.searchsorted(starts, index, side="right") - 1
        for number, block in enumerate(self._tensors()):
            inside = owner == number
            result[inside] = tf.gather(block, index[inside] - starts[number]).numpy()
        return result

    @property
    def _starts(self) -> np.ndarray:
        """The row at which each block begins."""
        return np.cumsum([0, *map(len, self.biases)])[:-1]

    def nearest(
        self, queries: np.ndarray, k: int, kept: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest rows of each query: index (q, k) and `|x − y|` (q, k), nearest first.

        Rows are scored by `x·y − |y|²/2`, which is the larger, the smaller `|x − y|²` is. What was
        found is measured again, by differences, and equal distances are ordered by index.

        Args:
            queries: (q, d) float32.
            k: from 1 to n.
            kept: booleans (n,), the rows to look at. Where they are fewer than k, the rest of the
                index is LEFT_OVER, at distance inf.
        """
        biases = None
        if kept is not None or not self.equally_long:
            masks = self._split(np.ones(len(self), bool) if kept is None else kept)
            biases = [np.where(m, b, -np.inf) for b, m in zip(self.biases, masks, strict=True)]
        parts = [
            self._nearest(queries[start : start + QUERIES], k, biases)
            for start in range(0, len(queries), QUERIES)
        ]
        return np.concatenate([i for i, _ in parts]), np.concatenate([d for _, d in parts])

    def _nearest(
        self, queries: np.ndarray, k: int, biases: list[np.ndarray] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        import tensorflow as tf

        best = _best()
        found = []
        for number, (block, start) in enumerate(zip(self._tensors(), self._starts, strict=True)):
            bias = None if biases is None else tf.constant(biases[number], tf.float32)
            score, place = best(tf.constant(queries), block, bias, tf.constant(k))
            found.append((score.numpy(), place.numpy() + start))
        scores, places = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        index = np.take_along_axis(places, order, axis=1)
        index[np.take_along_axis(scores, order, axis=1) == -np.inf] = LEFT_OVER
        return self.measured(queries, index)

    def measured(self, queries: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The index (q, k) ordered by `|x − y|`, and these distances; LEFT_OVER comes last."""
        distance = np.full(index.shape, np.inf, np.float32)
        step = max(1, COMPONENTS // (index.shape[1] * self.width))
        for start in range(0, len(index), step):
            rows = slice(start, start + step)
            difference = self.take(np.maximum(index[rows], 0)) - queries[rows, None]
            squared = np.einsum("qkd,qkd->qk", difference, difference)
            distance[rows] = np.where(index[rows] == LEFT_OVER, np.inf, np.sqrt(squared))
        order = np.lexsort((index, distance))
        return np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)

    @property
    def equally_long(self) -> bool:
        """Whether all rows have length 1, so that x·y alone orders them."""
        return all(np.ptp(bias) < 1e-6 and abs(bias[0] + 0.5) < 1e-6 for bias in self.biases)

    def _split(self, mask: np.ndarray) -> list[np.ndarray]:
        return np.split(mask, self._starts[1:])


@cache
def _best() -> Any:
    """The function of the scores and places (q, min(k, m)) of the best rows of one block."""
    import tensorflow as tf

    from keras_reid.reranking.topk import largest

    @tf.function(reduce_retracing=True, autograph=False)
    def best(queries: Any, block: Any, bias: Any, k: Any) -> tuple[Any, Any]:
        # This way round TensorFlow multiplies up to five times as fast, as rows outnumber queries.
        score = tf.matmul(block, queries, transpose_b=True)
        return largest(score if bias is None else score + bias[:, None], k, GROUP)

    return best
