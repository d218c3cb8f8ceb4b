"""Candidates for the nearest rows by faiss: an inverted file whose recall is measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from keras_reid import checks
from keras_reid.gallery.exact import Vectors

SAMPLE = 1024  # rows that are held back and asked for their neighbors, to measure recall
NEIGHBORS = 10
TRAINED_ON = 32  # rows for each list
PLENTY = 4
PART = 8  # numbers of a row that a byte stands for


def faiss() -> Any:
    """The module, or how to install it."""
    return checks.installed("faiss", "gallery")


class InvertedFile:
    """Rows by the nearest of `4 √n` centers, as codes of a byte for eight numbers.

    Where all true neighbors have to be found, it holds the rows themselves.

    A search compares codes in the nearest lists alone (Jégou et al., Product Quantization for
    Nearest Neighbor Search, 2011), and gives more candidates than are wanted, for distances of
    codes are not exact. How many lists and candidates is settled by a sample of rows, whose nearest
    neighbors the exact search knows. The sample is not in the index then, as a new image is not: a
    row that is lies in a list of those that are near it.

    Attributes:
        recall: the fraction of the true NEIGHBORS nearest that was found, measured when built.
        probes: lists that are looked into.
        wide: candidates for each row that is wanted.
    """

    def __init__(self, index: Any, probes: int, wide: int, recall: float, built: int) -> None:
        self.index, self.probes, self.wide = index, probes, wide
        self.recall, self.built = recall, built

    @classmethod
    def build(cls, vectors: Vectors, ids: np.ndarray, goal: float) -> "InvertedFile":
        """Of rows (n, d) with their ids (n,), n at least 2."""
        module = faiss()
        width = vectors.width
        lists = max(1, min(int(4 * np.sqrt(len(vectors))), len(vectors) // TRAINED_ON))
        random = np.random.default_rng(0)
        chosen = random.choice(len(vectors), min(len(vectors), TRAINED_ON * lists), replace=False)
        centers = module.IndexFlatL2(width)
        if goal < 1:
            parts, bits = width // math.gcd(width, PART), min(8, int(math.log2(len(chosen))))
            index = module.IndexIVFPQ(centers, width, lists, parts, bits)
            index.by_residual = False  # so that one table of distances serves all lists
            index.pq.cp.min_points_per_centroid = 1
            index.pq.cp.niter = 10
        else:  # no code may decide what is found
            index = module.IndexIVFFlat(centers, width, lists)
        index.cp.min_points_per_centroid = 1
        index.cp.niter = 10
        # The mean of several people is short, hence near to everybody, and would own most rows.
        index.cp.spherical = vectors.equally_long
        index.train(vectors.take(np.sort(chosen)))
        size = max(1, min(SAMPLE, len(vectors) // 2))
        sample = np.sort(random.choice(len(vectors), size, replace=False))
        held = np.zeros(len(vectors), bool)
        held[sample] = True
        start = 0
        for block in vectors.blocks:
            rows = slice(start, start + len(block))
            index.add_with_ids(block.numpy()[~held[rows]], ids[rows][~held[rows]])
            start += len(block)
        made = cls(index, 1, 1, 1.0, len(vectors))
        made._tune(vectors, ids, goal, sample)
        made.add(vectors.take(sample), ids[sample])
        return made

    def _tune(self, vectors: Vectors, ids: np.ndarray, goal: float, sample: np.ndarray) -> None:
        """Settles how many lists, and how many candidates.

        The lists miss nine tenths of what the goal lets be missed, and are known from the
        centers alone; the candidates are doubled until all that is missed is within the goal.
        """
        queries, k = vectors.take(sample), min(NEIGHBORS + 1, len(vectors))
        rows = vectors.nearest(queries, k)[0]
        true, others = ids[rows], ~np.isin(rows, sample)
        if others.any():
            lists = self.index.nlist
            order = np.argsort(self.index.quantizer.search(queries, lists)[1], axis=1)
            owner = self.index.quantizer.search(vectors.take(rows.ravel()), 1)[1]
            needed = np.sort(np.take_along_axis(order, owner.reshape(rows.shape), 1)[others])
            self.probes = 1 + int(needed[math.ceil((0.1 + 0.9 * goal) * len(needed)) - 1])
            while True:
                found = self.search(queries, k, None)
                hit = (true[:, :, None] == found[:, None, :]).any(axis=2)
                self.recall = float(hit[others].mean())
                if self.recall >= goal or self.wide * k >= self.index.ntotal:
                    break
                self.wide *= 2
        logging.info(
            "approximate index of %d rows: recall@%d %.4f over %d rows, %d of %d lists, %d "
            "candidates for each",
            *(len(vectors), k - 1, self.recall, len(sample), self.probes, self.index.nlist),
            self.wide,
        )

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        """Ids (q, m) of candidates for the k nearest, -1 where the lists held no more.

        For many hits more lists are looked into, on average of PLENTY times as many rows.

        Args:
            queries: (q, d).
            k: rows that are wanted; m is as many or more.
            allowed: ids of which the candidates are; None: all.
        """
        module = faiss()
        rows = max(1, self.index.ntotal) / self.index.nlist
        probes = min(self.index.nlist, max(self.probes, int(PLENTY * k / rows)))
        selector = None if allowed is None else module.IDSelectorBatch(allowed)
        options = module.SearchParametersIVF(sel=selector, nprobe=probes)
        wanted = max(k, min(self.wide * k, self.index.ntotal))
        return self.index.search(np.ascontiguousarray(queries), wanted, params=options)[1]

    def add(self, x: np.ndarray, ids: np.ndarray) -> None:
        self.index.add_with_ids(np.ascontiguousarray(x), ids)

    def write(self, path: Path) -> None:
        faiss().write_index(self.index, str(path))
