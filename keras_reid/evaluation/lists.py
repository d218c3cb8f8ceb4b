"""Ranked lists of single queries, to be looked at."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import Compared, as_rows
from keras_reid.evaluation.labels import NOBODY, Labeled, codes
from keras_reid.evaluation.protocols import Protocol, matches


class RankedList(NamedTuple):
    """What is nearest to a query, junk left out, nearest first.

    Attributes:
        query: its row.
        gallery: indices (k,).
        distance: (k,).
        same: booleans (k,), whether it is the query's person.
    """

    query: int
    gallery: np.ndarray
    distance: np.ndarray
    same: np.ndarray


def ranked_lists(
    compared: Compared,
    query: Labeled,
    gallery: Labeled,
    queries: Sequence[int],
    length: int = 10,
    protocol: str | Protocol = "market1501",
) -> list[RankedList]:
    """The lists of some queries, as `rank` sees them; equal distances by gallery index.

    >>> import numpy as np
    >>> from keras_reid.evaluation import Labels
    >>> distances = np.array([[0.1, 0.4, 0.3]])
    >>> query, gallery = Labels([7], [0]), Labels([7, 7, 9], [0, 1, 1])
    >>> (found,) = ranked_lists(distances, query, gallery, [0])
    >>> found.gallery.tolist(), found.same.tolist()
    ([2, 1], [False, True])

    Args:
        compared, query, gallery, protocol: as in `rank`.
        queries: rows, in the order in which their lists are wanted.
        length: of a list, if the gallery has as many.

    Raises:
        InputError: as `rank`; a protocol that ranks halves of the images; rows that are none.
    """
    protocol = Protocol.of(protocol)
    checks.at_least(1, length=length)
    if protocol.rule.halves:
        raise InputError(
            f"a query has one list: protocol {protocol.name!r} ranks random halves of the "
            "identities; choose market1501 or no-camera for lists"
        )
    source = as_rows(compared)
    if any(not 0 <= i < source.shape[0] for i in queries):
        raise InputError(f"queries are rows 0 to {source.shape[0] - 1}: received {list(queries)}")
    labels = codes(query, gallery, source.shape, not protocol.rule.cameras)
    junk = {i: found[1] for i, found in enumerate(matches(protocol.rule.one_set, labels))}
    nobody = np.flatnonzero(labels.gallery == NOBODY)
    lists = []
    for i in queries:
        row = source.rows(i, i + 1)[0]
        left_out = np.union1d(junk[i], nobody)
        count = min(length, len(row) - len(left_out))
        row[left_out] = np.inf
        nearest = np.argsort(row, kind="stable")[:count]
        same = labels.gallery[nearest] == labels.query[i]
        lists.append(RankedList(int(i), nearest, row[nearest], same))
    return lists
