"""Protocols: which gallery images are true matches of a query, and which are left out as junk."""

from collections.abc import Iterator

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.labels import NOBODY

SAME_CAMERA = "same identity in the same camera, and identity -1"
JUNK = {
    "market1501": SAME_CAMERA,
    "cuhk03": SAME_CAMERA,
    "cuhk03-classic": SAME_CAMERA + "; CMC over one random image of each identity",
    "viper": SAME_CAMERA + "; random halves of the identities, in both directions",
    "mars": SAME_CAMERA,
    "no-camera": "identity -1 only",
    "all-vs-all": "the image itself, and identity -1",
}
WITHOUT_CAMERAS = ("no-camera", "all-vs-all")
REPEATED = ("cuhk03-classic", "viper")

Match = tuple[np.ndarray, np.ndarray]


def matches(
    protocol: str,
    query_id: np.ndarray,
    gallery_id: np.ndarray,
    query_cam: np.ndarray,
    gallery_cam: np.ndarray,
) -> Iterator[Match]:
    """For each query the gallery indices, ascending, of its true matches and of its junk."""
    order = np.argsort(gallery_id, kind="stable")
    begin = np.searchsorted(gallery_id[order], query_id, "left")
    end = np.searchsorted(gallery_id[order], query_id, "right")
    for row, (first, last, camera) in enumerate(zip(begin, end, query_cam, strict=True)):
        same = order[first:last]
        if protocol == "all-vs-all":
            yield same[same != row], np.array([row])
        else:
            seen_here = gallery_cam[same] == camera
            yield same[~seen_here], same[seen_here]


def check_one_set(query_id: np.ndarray, gallery_id: np.ndarray) -> None:
    """Refuses other than the same images twice, as far as labels tell."""
    known = gallery_id != NOBODY
    same = len(query_id) == len(gallery_id) and (query_id[known] == gallery_id[known]).all()
    if not same:
        raise InputError(
            "protocol 'all-vs-all' ranks one set against itself, but query and gallery differ in "
            "number or identities: pass the same features and labels for both"
        )


class SingleShot:
    """Galleries of one random image of each identity: the classic test of CUHK03."""

    def __init__(self, gallery_id: np.ndarray, repeats: int, seed: int):
        self.order = np.argsort(gallery_id, kind="stable")
        self.order = self.order[gallery_id[self.order] != NOBODY]
        self.identity, self.begin, self.count = np.unique(
            gallery_id[self.order], return_index=True, return_counts=True
        )
        self.repeats, self.random = repeats, np.random.default_rng(seed)

    def first_ranks(self, row: np.ndarray, identity: int, hits: np.ndarray) -> np.ndarray:
        """Rank of the own identity's image in each random gallery: (repeats,)."""
        drawn = self.random.random((self.repeats, len(self.identity)))
        drawn = self.order[self.begin + (drawn * self.count).astype(int)]
        own = hits[self.random.integers(len(hits), size=self.repeats)][:, None]
        others = drawn[:, self.identity != identity]
        nearer = row[others] < row[own]
        tied_before = (row[others] == row[own]) & (others < own)
        return 1 + (nearer | tied_before).sum(axis=1)


def halves(
    query_id: np.ndarray, gallery_id: np.ndarray, repeats: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of a random half of the identities that both sides hold."""
    both = np.intersect1d(query_id, gallery_id[gallery_id != NOBODY])
    random = np.random.default_rng(seed)
    for _ in range(repeats):
        half = random.permutation(both)[: max(1, len(both) // 2)]
        yield np.flatnonzero(np.isin(query_id, half)), np.flatnonzero(np.isin(gallery_id, half))
