"""What every re-ranker makes: new distances of query × gallery, a few queries at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.reranking.blocks import in_blocks

BLOCK_ELEMENTS = 2**22  # 16 MiB; larger ones go back to the system, which clears memory anew
Size = Any  # int, or a scalar tensor inside a tf.function


@dataclass(frozen=True)
class RerankedRows:
    """A (q, g) matrix whose rows `start` to `stop` are computed when `rows(start, stop)` is called.

    The whole matrix need not exist: `evaluation.rank` reads it in blocks.
    """

    shape: tuple[Size, Size]
    compute: Callable[[Size, Size], Any]
    name: str = "euclidean"  # what was re-ranked
    reranking: str = "none"
    mapped: bool = False  # each reading of rows reads a file; see `evaluation.rows.blocks`

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop`, or to the end, float32."""
        stop = min(int(stop), self.shape[0])
        return np.array(self.compute(int(start), stop), np.float32)

    def matrix(self) -> np.ndarray:
        """All rows, float32 (q, g)."""
        result = np.empty(self.shape, np.float32)
        step = max(1, BLOCK_ELEMENTS // self.shape[1])
        for start in range(0, len(result), step):
            result[start : start + step] = self.rows(start, start + step)
        return result

    def tensor(self) -> tf.Tensor:
        """All rows inside a tf.function, float32 (q, g)."""

        def work(start: Size, stop: Size) -> tuple[tf.Tensor]:
            return (self.compute(start, stop),)

        queries, gallery = self.shape
        size = tf.maximum(1, BLOCK_ELEMENTS // gallery)
        return in_blocks(work, queries, size, (tf.TensorSpec([None, None], tf.float32),))[0]
