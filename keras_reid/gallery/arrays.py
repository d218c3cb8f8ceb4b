"""Galleries in memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_reid.errors import InputError
from keras_reid.gallery.approximate import InvertedFile
from keras_reid.gallery.exact import LEFT_OVER, Vectors
from keras_reid.gallery.store import NO_FILTER, TEXTS, Filter, Labels, Rows, SearchResult
from keras_reid.names import normalized

FEW = 0.05  # of the rows: a search among so few is exact, and an index would miss them


class ArrayStore:
    """Rows in memory, lost when the process ends. `FileStore` and `MilvusStore` have its methods.

    From `approximate_from` rows on, an inverted file finds the candidates, if faiss is installed.
    """

    def __init__(self, approximate_from: int, recall: float) -> None:
        self.approximate_from, self.goal = approximate_from, recall
        self._settings: dict[str, Any] = {}
        self._forget()

    def _forget(self) -> None:
        self.vectors = Vectors(0)
        self.ids = np.zeros(0, np.int64)  # ascending
        self.identity = self.camera = self.image = np.zeros(0, object)
        self.attributes = self.digest = np.zeros(0, object)
        self.time = np.zeros(0)
        self.places: dict[str, int] = {}  # also by references in NFC, unless other rows have these
        self.index: InvertedFile | None = None

    def settings(self) -> dict[str, Any]:
        """Return what `save_settings` wrote; empty in a new gallery."""
        return dict(self._settings)

    def save_settings(self, settings: dict[str, Any]) -> None:
        self._settings = dict(settings)

    def add(self, rows: Rows) -> None:
        """Return when the rows, which were checked, are durable."""
        self._hold(rows, np.arange(len(rows)) + (self.ids[-1] + 1 if len(self.ids) else 0))

    def _hold(self, rows: Rows, ids: np.ndarray) -> None:
        if not len(self.vectors):
            self.vectors = Vectors(rows.embedding.shape[1])
        self._place(rows.image, len(self.ids))
        self.vectors.append(rows.embedding)
        self.ids = np.concatenate([self.ids, ids])
        self.time = np.concatenate([self.time, rows.time])
        for name in TEXTS:
            texts = np.array(getattr(rows, name), object)
            setattr(self, name, np.concatenate([getattr(self, name), texts]))
        if self.index is not None:
            self.index.add(rows.embedding, ids)

    def _place(self, images: Sequence[str], first: int) -> None:
        own = {image: i for i, image in enumerate(images, first)}
        for image, i in own.items():
            self.places.setdefault(normalized(image), i)
        self.places |= own

    def replace(self, images: Sequence[str], rows: Rows) -> None:
        """Erase the rows of these image references and add `rows`, all at once.

        Closing the gallery erases the old rows from its files.
        """
        self._drop(self._rows_of(images))
        self.add(rows)

    def _rows_of(self, images: Sequence[str]) -> np.ndarray:
        """Mask (n,) of the rows of references that the gallery holds."""
        mask = np.zeros(len(self.ids), bool)
        mask[[self.places[image] for image in images]] = True
        return mask

    def remove(self, identity: str) -> int:
        """Erase the rows of an identity, durably, and return how many there were."""
        return self._drop(self.identity == identity)

    def _drop(self, chosen: np.ndarray) -> int:
        """Drop the chosen rows (n,) and return how many there were.

        The index is dropped, too, because centers of k-means may equal embeddings that it was
        trained on. The next search trains another.
        """
        kept, dropped = ~chosen, int(chosen.sum())
        if dropped == len(self.ids):
            self._forget()
        elif dropped:
            self.vectors.keep(kept)
            for name in ("ids", "time", *TEXTS):
                setattr(self, name, getattr(self, name)[kept])
            self.places = {}
            self._place(self.image.tolist(), 0)
            self.index = None
        return dropped

    def count(self) -> int:
        return len(self.ids)

    def identities(self) -> dict[str, int]:
        """Number of rows of each identity."""
        names, counts = np.unique(self.identity.astype(str), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def held(self, images: Sequence[str]) -> dict[str, Labels]:
        """Return the rows of those images that the gallery holds, by the passed reference.

        Without a row of the same reference, a row with the same reference in Unicode NFC counts.
        """
        find = self.places.get
        places = {image: find(image, find(normalized(image))) for image in images}
        return {image: self._labels(i) for image, i in places.items() if i is not None}

    def _labels(self, i: int) -> Labels:
        time = None if np.isnan(self.time[i]) else float(self.time[i])
        return Labels(time=time, **{name: getattr(self, name)[i] for name in TEXTS})

    def search(self, embeddings: np.ndarray, k: int, filter: Filter) -> list[list[SearchResult]]:
        """The k nearest rows of each query, nearest first."""
        kept = None if filter == NO_FILTER else self._chosen(filter)
        index, distance = self._nearest(embeddings, k, kept)
        return [
            [self._hit(j, d) for j, d in zip(i, row, strict=True) if j != LEFT_OVER]
            for i, row in zip(index.tolist(), distance.tolist(), strict=True)
        ]

    def _hit(self, i: int, distance: float) -> SearchResult:
        return SearchResult(*self._labels(i)[:4], distance)

    def _nearest(
        self, embeddings: np.ndarray, k: int, kept: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        few = kept is not None and kept.sum() < max(FEW * len(kept), 10 * k)
        inverted = None if few else self._inverted_file()
        if inverted is None:
            return self.vectors.nearest(embeddings, k, kept)
        ids = inverted.search(embeddings, k, None if kept is None else self.ids[kept])
        places = np.where(ids == LEFT_OVER, LEFT_OVER, np.searchsorted(self.ids, ids))
        short = (places != LEFT_OVER).sum(axis=1) < k  # the lists held fewer that are kept
        if short.any():
            places[short] = LEFT_OVER
            places[short, :k] = self.vectors.nearest(embeddings[short], k, kept)[0]
        index, distance = self.vectors.measured(embeddings, places)
        return index[:, :k], distance[:, :k]

    def _inverted_file(self) -> InvertedFile | None:
        count = len(self.ids)
        if count < max(2, self.approximate_from):
            return None
        if self.index is None or count > 2 * self.index.built:
            try:
                self.index = InvertedFile.build(self.vectors, self.ids, self.goal)
            except InputError:  # no faiss: the search stays exact
                self.approximate_from = 2**62
        return self.index

    def _chosen(self, filter: Filter) -> np.ndarray:
        kept = np.ones(len(self.ids), bool)
        if filter.cameras is not None:
            kept &= np.isin(self.camera.astype(str), filter.cameras)
        if filter.not_cameras is not None:
            kept &= ~np.isin(self.camera.astype(str), filter.not_cameras)
        with np.errstate(invalid="ignore"):
            if filter.after is not None:
                kept &= self.time >= filter.after
            if filter.before is not None:
                kept &= self.time < filter.before
        return kept

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        """Return embeddings (n, d) of enrolled images, by their references in the gallery."""
        return self.vectors.take(np.array([self.places[image] for image in images], np.int64))

    def of(self, identities: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Return embeddings (n, d) of all images of these identities, and the identity of each."""
        rows = np.flatnonzero(np.isin(self.identity.astype(str), list(identities)))
        return self.vectors.take(rows), self.identity[rows].tolist()

    def described(self, filter: Filter) -> Iterator[tuple[SearchResult, str]]:
        """Yield the rows that have attributes, as hits without a distance (0), and these."""
        for i in np.flatnonzero(self._chosen(filter) & (self.attributes != "")).tolist():
            yield self._hit(i, 0.0), self.attributes[i]

    def stats(self) -> dict[str, Any]:
        """Facts about the back end, by name."""
        if self.index is None:
            return {"search": "exact"}
        return {
            "search": f"inverted file, {self.index.probes} of {self.index.index.nlist} lists",
            "recall": self.index.recall,
        }

    def close(self) -> None:
        self._forget()
