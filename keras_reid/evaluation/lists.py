"""Ranked lists of single queries, for pictures and pages."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.evaluation.comparison import Distances, as_rows
from keras_reid.evaluation.labels import Labeled
from keras_reid.evaluation.protocols import Protocol


class RankedList(NamedTuple):
    """Nearest gallery images of a query without junk, nearest first.

    Attributes:
        query: row of the query.
        gallery: indices (k,).
        distance: (k,).
        same: booleans (k,), True for images of the query's person.

    Example:
        >>> import numpy as np
        >>> ranked = RankedList(0, np.array([4, 2]), np.array([0.1, 0.3]), np.array([True, False]))
        >>> ranked.gallery[ranked.same].tolist()
        [4]
    """

    query: int
    gallery: np.ndarray
    distance: np.ndarray
    same: np.ndarray


def ranked_lists(
    distances: Distances,
    query: Labeled,
    gallery: Labeled,
    queries: Sequence[int],
    length: int = 10,
    protocol: str | Protocol = "market1501",
) -> list[RankedList]:
    """Return the lists of some queries in the order of `rank`; equal distances by gallery index.

    Example:
        >>> import numpy as np
        >>> from keras_reid.evaluation import Labels
        >>> distances = np.array([[0.1, 0.4, 0.3]])
        >>> query, gallery = Labels([7], [0]), Labels([7, 7, 9], [0, 1, 1])
        >>> (nearest,) = ranked_lists(distances, query, gallery, [0])
        >>> nearest.gallery.tolist(), nearest.same.tolist()
        ([2, 1], [False, True])

    Args:
        distances: (q, g) or features, as in `rank`.
        query: labels of the q query images.
        gallery: labels of the g gallery images.
        queries: rows of the queries, in the order of the lists.
        length: maximum length of a list.
        protocol: a `Protocol`, or its name.

    Raises:
        InputError: as `rank`.
        IndexError: rows out of range.
    """
    protocol = Protocol.of(protocol)
    checks.at_least(1, length=length)
    source = as_rows(distances)
    labels = protocol.codes(query, gallery, source.shape)
    lists = []
    for i in queries:
        row = source.rows(i, i + 1)[0]
        (same,), (junk,) = labels.masks(i, i + 1)
        row[junk] = np.inf
        nearest = np.argsort(row, kind="stable")[: min(length, int((~junk).sum()))]
        lists.append(RankedList(int(i), nearest, row[nearest], same[nearest]))
    return lists
