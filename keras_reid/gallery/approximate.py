"""Candidates for the nearest rows by faiss: an inverted file with a measured recall."""

import math
from typing import Any

import numpy as np
from absl import logging

from keras_reid import checks
from keras_reid.gallery.vectors import Vectors

SAMPLE = 1024  # held-out rows that are searched to measure recall
NEIGHBORS = 10
TRAINED_ON = 32  # rows for each list
PLENTY = 4
PART = 8  # numbers of a row for each byte of its code


def faiss() -> Any:
    """Return the module, or raise an error that names the extra."""
    return checks.installed("faiss", "gallery")


class InvertedFile:
    """Inverted file: lists of rows by the nearest of `4 √n` centers.

    A row is stored as a code of one byte for eight numbers, or unchanged if the recall is 1.

    A search compares codes in the nearest lists only (Jégou et al., Product Quantization for
    Nearest Neighbor Search, 2011). It returns more candidates than requested, because distances of
    codes are not exact. The numbers of lists and of candidates are set by a sample of rows with
    known nearest neighbors. The sample is added to the index afterwards, because a row of the index
    is in a list near itself, and a query is not.

    Attributes:
        numbers: `probes`, the number of searched lists; `wide`, the number of candidates for each
            requested row; `recall`, the fraction of the NEIGHBORS nearest rows that was retrieved
            in the sample; `built`, the number of rows at that time.
    """

    def __init__(self, index: Any, numbers: dict[str, Any]) -> None:
        self.index, self.numbers = index, numbers

    @classmethod
    def build(cls, vectors: Vectors, ids: np.ndarray, goal: float) -> "InvertedFile":
        """Build the index of rows (n, d) with ids (n,), n at least 2, for a recall."""
        module, count, width = faiss(), len(vectors), vectors.width
        lists = max(1, min(int(4 * np.sqrt(count)), count // TRAINED_ON))
        random = np.random.default_rng(0)
        chosen = random.choice(count, min(count, TRAINED_ON * lists), replace=False)
        parts, bits = width // math.gcd(width, PART), min(8, int(math.log2(len(chosen))))
        codes = f"PQ{parts}x{bits}" if goal < 1 else "Flat"
        index = module.index_factory(width, f"IVF{lists},{codes}")
        if goal < 1:
            index.by_residual = False  # so that one table of distances serves all lists
            index.pq.cp.min_points_per_centroid = 1
            index.pq.cp.niter = 10
        index.cp.min_points_per_centroid = 1
        index.cp.niter = 10
        # The mean of several persons is short, so it is near to all others and would own most rows.
        index.cp.spherical = vectors.equal_lengths
        index.train(vectors.take(np.sort(chosen)))
        size = max(1, min(SAMPLE, count // 2))
        sample = np.sort(random.choice(count, size, replace=False))
        start, others = 0, np.ones(count, bool)
        others[sample] = False
        for block in vectors.blocks:
            rows = slice(start, start + len(block))
            index.add_with_ids(block[others[rows]], ids[rows][others[rows]])
            start += len(block)
        built = cls(index, {"probes": 1, "wide": 1, "recall": 1.0, "built": count})
        built._tune(vectors, ids, goal, sample)
        built.add(vectors.take(sample), ids[sample])
        return built

    def _tune(self, vectors: Vectors, ids: np.ndarray, goal: float, sample: np.ndarray) -> None:
        """Set the numbers of lists and candidates.

        The lists miss nine tenths of the allowed fraction, and depend only on the centers. The
        candidates are doubled until the whole loss is within the goal.
        """
        queries, k, numbers = vectors.take(sample), min(NEIGHBORS + 1, len(vectors)), self.numbers
        rows = vectors.nearest(queries, k)[0]
        true, others = ids[rows], ~np.isin(rows, sample)
        if others.any():
            lists = self.index.nlist
            order = np.argsort(self.index.quantizer.search(queries, lists)[1], axis=1)
            owner = self.index.quantizer.search(vectors.take(rows.ravel()), 1)[1]
            needed = np.sort(np.take_along_axis(order, owner.reshape(rows.shape), 1)[others])
            numbers["probes"] = 1 + int(needed[math.ceil((0.1 + 0.9 * goal) * len(needed)) - 1])
            while True:
                candidates = self.search(queries, k, None)
                hit = (true[:, :, None] == candidates[:, None, :]).any(axis=2)
                numbers["recall"] = float(hit[others].mean())
                if numbers["recall"] >= goal or numbers["wide"] * k >= self.index.ntotal:
                    break
                numbers["wide"] *= 2
        logging.info("approximate index: %s of %d lists", numbers, self.index.nlist)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        """Return ids (q, m) of candidates for the k nearest, -1 where the lists held no more.

        For large k, more lists are searched, on average of PLENTY times as many rows.

        Args:
            queries: (q, d).
            k: number of requested rows; m is at least k.
            allowed: ids of possible candidates; None: all.
        """
        module = faiss()
        rows = max(1, self.index.ntotal) / self.index.nlist
        probes = min(self.index.nlist, max(self.numbers["probes"], int(PLENTY * k / rows)))
        selector = None if allowed is None else module.IDSelectorBatch(allowed)
        options = module.SearchParametersIVF(sel=selector, nprobe=probes)
        wanted = max(k, min(self.numbers["wide"] * k, self.index.ntotal))
        return self.index.search(np.ascontiguousarray(queries), wanted, params=options)[1]

    def add(self, x: np.ndarray, ids: np.ndarray) -> None:
        """Add rows (n, d) with ids (n,)."""
        self.index.add_with_ids(np.ascontiguousarray(x), ids)

    def stats(self) -> dict[str, Any]:
        """Return facts about the search, by name."""
        searched = f"{self.numbers['probes']} of {self.index.nlist} lists"
        return {"search": f"inverted file, {searched}", "recall": self.numbers["recall"]}

    def to_bytes(self) -> bytes:
        """Return the index, without `numbers`, as bytes."""
        return bytes(faiss().serialize_index(self.index))

    @classmethod
    def from_bytes(cls, content: bytes, numbers: dict[str, Any]) -> "InvertedFile":
        """Return the index that `to_bytes` wrote."""
        return cls(faiss().deserialize_index(np.frombuffer(content, np.uint8)), numbers)
