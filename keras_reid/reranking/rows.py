"""What every re-ranker makes: new distances of query × gallery, a few queries at a time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

BLOCK_ELEMENTS = 2**23  # 32 MiB; products of fewer rows are slower


@dataclass(frozen=True)
class RerankedRows:
    """A (q, g) matrix whose rows `start` to `stop` are computed when `rows(start, stop)` is called.

    The whole matrix need not exist: `evaluation.rank` reads it in blocks.
    """

    shape: tuple[int, int]
    compute: Callable[[int, int], np.ndarray]
    distance: str = "euclidean"  # what was re-ranked

    def rows(self, start: int, stop: int) -> np.ndarray:
        stop = min(int(stop), self.shape[0])
        return np.array(self.compute(int(start), stop), np.float32)

    def matrix(self) -> np.ndarray:
        """All rows, float32 (q, g)."""
        result = np.empty(self.shape, np.float32)
        step = max(1, BLOCK_ELEMENTS // self.shape[1])
        for start in range(0, len(result), step):
            result[start : start + step] = self.rows(start, start + step)
        return result
