"""Exact nearest rows by blocked matrix products, in two stages."""

from typing import Any

import numpy as np

from keras_reid.nearest.arrays import nearest_in_block, squared_norms

# Distances in one block: 128 MiB. Products of fewer queries are slower.
QUERIES = 256
ROWS = 2**17
GROUP = 64
COMPONENTS = 2**24  # numbers gathered at a time to measure the retrieved rows
NO_ROW = -1


class Vectors:
    """Embeddings (n, d) in blocks, with exact search."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []  # (m, d)
        self.norms: list[np.ndarray] = []  # |y|² of their rows

    def __len__(self) -> int:
        return sum(map(len, self.norms))

    @property
    def width(self) -> int:
        """Embedding size d."""
        return int(self.blocks[0].shape[1])

    def append(self, x: np.ndarray) -> None:
        """Append rows (m, d).

        The last block is joined with the new rows if it is not larger than these, repeatedly. Thus
        each row is copied only a few times, however few rows a call appends, and few blocks are
        small.
        """
        parts = [x]
        while self.blocks and len(self.norms[-1]) <= min(ROWS - 1, sum(map(len, parts))):
            parts.insert(0, self.blocks.pop())
            self.norms.pop()
        self._put(np.concatenate(parts))

    def keep(self, kept: np.ndarray) -> None:
        """Drop the rows where `kept` (n,) is False."""
        masks = zip(self.blocks, self._split(kept), strict=True)
        parts = [block[mask] for block, mask in masks]
        self.blocks, self.norms = [], []
        self._put(np.concatenate(parts))

    def _put(self, x: np.ndarray) -> None:
        for start in range(0, len(x), ROWS):
            block = x[start : start + ROWS]
            self.blocks.append(block)
            self.norms.append(squared_norms(block))

    def take(self, index: np.ndarray) -> np.ndarray:
        """Return the rows of an index of any shape: (…, d)."""
        result = np.empty((*index.shape, self.width), np.float32)
        starts = self._starts
        owner = np.searchsorted(starts, index, side="right") - 1
        for number, block in enumerate(self.blocks):
            inside = owner == number
            result[inside] = block[index[inside] - starts[number]]
        return result

    @property
    def _starts(self) -> np.ndarray:
        """First row of each block."""
        return np.cumsum([0, *map(len, self.norms)])[:-1]

    def nearest(
        self, queries: np.ndarray, k: int, kept: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the k nearest rows of each query: index (q, k) and `|x − y|` (q, k), ascending.

        Distances of the retrieved rows are computed again from differences. Equal distances are
        ordered by index.

        Args:
            queries: (q, d) float32.
            k: from 1 to n.
            kept: mask (n,) of the rows to compare. If they are fewer than k, the rest of the index
                is NO_ROW, at distance inf.
        """
        norms: list[Any] = [None] * len(self.blocks)
        if kept is not None or not self.equal_lengths:
            masks = self._split(np.ones(len(self), bool) if kept is None else kept)
            norms = [np.where(m, n, np.inf) for m, n in zip(masks, self.norms, strict=True)]
        parts = [
            self._nearest(queries[start : start + QUERIES], k, norms)
            for start in range(0, len(queries), QUERIES)
        ]
        return np.concatenate([i for i, _ in parts]), np.concatenate([d for _, d in parts])

    def _nearest(
        self, queries: np.ndarray, k: int, norms: list[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        blocks = zip(self.blocks, norms, strict=True)
        nearest = [nearest_in_block(queries, block, n, k, GROUP) for block, n in blocks]
        values = np.concatenate([value for _, value in nearest], axis=1)
        starts = zip(nearest, self._starts, strict=True)
        places = np.concatenate([place + start for (place, _), start in starts], axis=1)
        order = np.argsort(values, axis=1, kind="stable")[:, :k]
        index = np.take_along_axis(places, order, axis=1)
        index[np.take_along_axis(values, order, axis=1) == np.inf] = NO_ROW
        return self.measured(queries, index)

    def measured(self, queries: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the index (q, k) ordered by `|x − y|`, and these distances; NO_ROW comes last."""
        distance = np.full(index.shape, np.inf, np.float32)
        step = max(1, COMPONENTS // (index.shape[1] * self.width))
        for start in range(0, len(index), step):
            rows = slice(start, start + step)
            difference = self.take(np.maximum(index[rows], 0)) - queries[rows, None]
            squared = np.einsum("qkd,qkd->qk", difference, difference)
            distance[rows] = np.where(index[rows] == NO_ROW, np.inf, np.sqrt(squared))
        order = np.lexsort((index, distance))
        return np.take_along_axis(index, order, 1), np.take_along_axis(distance, order, 1)

    @property
    def equal_lengths(self) -> bool:
        """True if all rows have length 1, so that x·y alone orders them."""
        return all(np.ptp(n) < 2e-6 and abs(n[0] - 1) < 2e-6 for n in self.norms)

    def _split(self, mask: np.ndarray) -> list[np.ndarray]:
        return np.split(mask, self._starts[1:])
