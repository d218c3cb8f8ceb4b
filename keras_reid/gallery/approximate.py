"""Approximate nearest rows by faiss: an inverted file whose recall is measured."""

from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from keras_reid.errors import InputError
from keras_reid.gallery.exact import Vectors

SAMPLE = 1024  # rows that are held back and asked for their neighbours, to measure recall
NEIGHBOURS = 10
TRAINED_ON = 32  # rows for each list
PLENTY = 4


def faiss() -> Any:
    """The module, or how to install it."""
    try:
        import faiss as module
    except ImportError as error:
        raise InputError(
            'an index in a file needs faiss: pip install ".[gallery]" in the checkout'
        ) from error
    return module


class InvertedFile:
    """Rows by the nearest of `4 √n` centres; a search looks into the nearest lists alone.

    How many, `probes`, grows until the nearest neighbours of a sample of rows are found as often as
    `goal` says. The exact search knows which these are. The sample is not in the index then, as a
    new image is not: a row that is lies in a list of those that are near it.

    Attributes:
        recall: the fraction of the true NEIGHBOURS nearest that was found, measured when built.
        probes: lists that are looked into.
    """

    def __init__(self, index: Any, probes: int, recall: float, built: int) -> None:
        self.index, self.probes, self.recall, self.built = index, probes, recall, built

    @classmethod
    def build(cls, vectors: Vectors, ids: np.ndarray, goal: float) -> "InvertedFile":
        module = faiss()
        lists = max(1, min(int(4 * np.sqrt(len(vectors))), len(vectors) // TRAINED_ON))
        index = module.IndexIVFFlat(module.IndexFlatL2(vectors.width), vectors.width, lists)
        random = np.random.default_rng(0)
        chosen = random.choice(len(vectors), min(len(vectors), TRAINED_ON * lists), replace=False)
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
        made = cls(index, 1, 0.0, len(vectors))
        made._tune(vectors, ids, goal, sample)
        made.add(vectors.take(sample), ids[sample])
        return made

    def _tune(self, vectors: Vectors, ids: np.ndarray, goal: float, sample: np.ndarray) -> None:
        queries, k = vectors.take(sample), min(NEIGHBOURS + 1, len(vectors))
        true = ids[vectors.nearest(queries, k)[0]]
        others = ~np.isin(true, ids[sample])
        while True:
            found = self.search(queries, k, None)
            hit = (true[:, :, None] == found[:, None, :]).any(axis=2)
            self.recall = float(hit[others].mean()) if others.any() else 1.0
            if self.recall >= goal or self.probes >= self.index.nlist:
                break
            self.probes = min(self.probes + 1 + self.probes // 2, self.index.nlist)
        logging.info(
            "approximate index of %d rows: recall@%d %.4f over %d rows, %d of %d lists",
            *(len(vectors), k - 1, self.recall, len(sample), self.probes, self.index.nlist),
        )

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        """Ids (q, k), -1 where the lists held no more; of the allowed ids only, if given.

        For many hits more lists are looked into, on average of PLENTY times as many rows.
        """
        module = faiss()
        rows = max(1, self.index.ntotal) / self.index.nlist
        probes = min(self.index.nlist, max(self.probes, int(PLENTY * k / rows)))
        selector = None if allowed is None else module.IDSelectorBatch(allowed)
        options = module.SearchParametersIVF(sel=selector, nprobe=probes)
        return self.index.search(np.ascontiguousarray(queries), k, params=options)[1]

    def add(self, x: np.ndarray, ids: np.ndarray) -> None:
        self.index.add_with_ids(np.ascontiguousarray(x), ids)

    def remove(self, ids: np.ndarray) -> None:
        self.index.remove_ids(faiss().IDSelectorBatch(ids))

    def write(self, path: Path) -> None:
        faiss().write_index(self.index, str(path))
