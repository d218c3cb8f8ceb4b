"""Retrieval 1:N, closed set: CMC, mean average precision and mINP under a declared protocol.

Every score follows from the ranks of the true matches, and a rank is a count of smaller distances.
Each row is therefore sorted by value, which takes a quarter of the time of argsort.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import Distances, as_rows, matrix_rows
from keras_reid.evaluation.labels import UNLABELED, Codes, Labeled
from keras_reid.evaluation.protocols import TIES, Protocol, SingleShot, matches
from keras_reid.evaluation.protocols import halves as random_halves
from keras_reid.evaluation.result import QueryScores, RankingProtocol, RankingResult
from keras_reid.nearest.arrays import Rows


def rank(
    distances: Distances,
    query: Labeled,
    gallery: Labeled,
    protocol: str | Protocol = "market1501",
    *,
    max_rank: int = 50,
    camera_pairs: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RankingResult:
    """Return CMC, mAP (both formulas) and mINP of ranking the gallery for each query.

    >>> import numpy as np
    >>> from keras_reid.evaluation import Labels
    >>> distances = np.array([[0.1, 0.2, 0.3, 0.4]])
    >>> query = Labels(identity=[7], camera=[0])
    >>> gallery = Labels(identity=[7, 9, 7, 7], camera=[0, 1, 1, 2])
    >>> result = rank(distances, query, gallery)  # the first image is of the query's camera
    >>> result.rank(1), round(result.mAP, 3)
    (0.0, 0.583)

    Args:
        distances: (q, g), smaller means more similar: the rows that `compare` returns, a
            matrix, which may be memory-mapped, or the tuple (query, gallery) of features (n, d),
            compared by Euclidean distance.
        query, gallery: identities and cameras of the q and g images: `Labels`, or another object
            with `identity` and `camera`, such as `keras_reid.data.PersonImages`.
        protocol: a `Protocol`, or its name.
        max_rank: length of the CMC.
        camera_pairs: also score each query camera against each gallery camera alone, if the
            protocol uses cameras.
        progress: called with the number of queries scored and of all.

    Returns:
        RankingResult: fractions in [0, 1] with the protocol.

    Raises:
        InputError: sizes that do not fit, values that are not finite, an unknown name, missing
            cameras, no gallery, or no query with a true match.

    Source: Zheng et al., ICCV 2015 (trapezoid AP); Ye et al., TPAMI 2022, arXiv:2001.04193 (mINP).
    """
    protocol = Protocol.of(protocol)
    rule = protocol.rule
    checks.at_least(1, max_rank=max_rank)
    source = as_rows(distances)
    if source.reranking != "none" and (rule.halves or rule.one_set):
        use = "ranks random halves of both sets" if rule.halves else "has each image in both sets"
        raise InputError(
            f"Protocol {protocol.name!r} {use}, so it cannot score distances that were re-ranked "
            f"by {source.reranking!r}. Leave the re-ranking out."
        )
    labels = protocol.codes(query, gallery, source.shape)
    scorer = _Scorer(protocol, camera_pairs and rule.cameras, progress)
    scores = (scorer.halves if rule.halves else scorer.scores)(source, labels)
    valid = len(scores.query)
    if not valid:
        raise InputError(
            f"A score needs a query with a true match after the junk rule, got {labels.query.size} "
            f"queries without in a gallery of {labels.gallery.size}. Check identities and cameras "
            "of both, or use protocol='no-camera'."
        )
    stamp = RankingProtocol(
        name=protocol.name,
        junk=rule.junk,
        valid_queries=valid,
        invalid_queries=scores.queries - valid,
        invalid=protocol.invalid,
        gallery_size=int((labels.gallery != UNLABELED).sum()) - rule.one_set,
        distance=source.name,
        reranking=source.reranking,
        dataset=protocol.dataset,
        ties=TIES[protocol.ties],
        repeats=protocol.repeats if protocol.is_random else 1,
        seed=protocol.seed if protocol.is_random else None,
    )
    return RankingResult.of(scores, max_rank, stamp, _pair_scores(scorer.pairs))


@dataclass
class _Scorer:
    """Score rows of distances, a few queries in memory at a time."""

    protocol: Protocol
    camera_pairs: bool
    progress: Callable[[int, int], None] | None
    pairs: dict[tuple[Any, Any], list[np.ndarray]] = field(default_factory=dict)

    def scores(self, source: Rows, labels: Codes) -> QueryScores:
        """Return the scores of all queries that have a true match."""
        count = source.shape[0]
        indices = matches(labels)
        junk_everywhere = np.flatnonzero(labels.gallery == UNLABELED)
        query, scored, drawn = [], [np.empty((4, 0))], []
        protocol, single_shot = self.protocol, None
        if protocol.rule.single_shot:
            single_shot = SingleShot(labels.gallery, protocol.repeats, protocol.seed)
        for start, rows in source.blocks():
            _check_finite(rows, start)
            rows[:, junk_everywhere] = np.inf
            block: Iterator[Any] = zip(rows, islice(indices, len(rows)), strict=True)
            ranks = []
            for i, (row, (hits, junk)) in enumerate(block, start):
                if not len(hits):
                    continue
                row[junk] = np.inf
                query.append(i)
                ranks.append(_hit_ranks(row, hits, protocol.ties))
                if single_shot:
                    drawn.append(single_shot.first_ranks(row, labels.query[i], hits))
                if self.camera_pairs:
                    self._by_camera(row, hits, labels, i)
            scored.append(_scores(ranks))
            if self.progress:
                self.progress(start + len(rows), count)
        first, average, trapezoid, last = np.concatenate(scored, axis=1)
        firsts = np.stack(drawn) if drawn else first[:, None]
        return QueryScores(np.array(query, int), firsts, average, trapezoid, last, count)

    def halves(self, source: Rows, labels: Codes) -> QueryScores:
        """Return the scores of random halves of the identities, in both directions."""
        whole = source.rows(0, source.shape[0])
        query, gallery, query_camera, gallery_camera, cameras = labels
        protocol, parts = self.protocol, []
        for q, g in random_halves(query, gallery, protocol.repeats, protocol.seed):
            half = Codes(query[q], gallery[g], query_camera[q], gallery_camera[g], cameras)
            matrix = whole[np.ix_(q, g)]
            parts.append(self.scores(matrix_rows(matrix), half))
            parts.append(self.scores(matrix_rows(matrix.T), half.swapped()))
        return QueryScores.joined(parts)

    def _by_camera(self, row: np.ndarray, hits: np.ndarray, labels: Codes, query: int) -> None:
        gallery_camera, names = labels.gallery_camera, labels.cameras
        camera = names[labels.query_camera[query]]
        for code in np.unique(gallery_camera[hits]):
            columns = np.flatnonzero(gallery_camera == code)
            of_camera = np.searchsorted(columns, hits[gallery_camera[hits] == code])
            ranks = _hit_ranks(row[columns], of_camera, self.protocol.ties)
            self.pairs.setdefault((camera, names[code]), []).append(ranks)


def _hit_ranks(row: np.ndarray, hits: np.ndarray, ties: str) -> np.ndarray:
    """Return the ascending ranks from 1 of `hits` in `row` (g,); junk must be infinite."""
    values, ordered = row[hits], np.sort(row)
    before = np.searchsorted(ordered, values, "left")
    equal = np.searchsorted(ordered, values, "right") - before
    for value in set(values[equal > 1]):
        at = values == value
        own = np.arange(at.sum())
        if ties == "index":
            own = np.searchsorted(np.flatnonzero(row == value), hits[at])
        elif ties == "pessimistic":
            own += equal[at] - len(own)
        before[at] += own
    return np.sort(before) + 1


def _scores(ranks: list[np.ndarray]) -> np.ndarray:
    """Return first rank, AP, trapezoid AP and `n / r_n` by the hit ranks `r_1..r_n`: (4, v)."""
    if not ranks:
        return np.empty((4, 0))
    count = np.array([len(r) for r in ranks])
    start = np.cumsum(count) - count
    rank = np.concatenate(ranks)
    hit = np.arange(len(rank)) - np.repeat(start, count) + 1
    precision = hit / rank
    one_earlier = np.where(rank > 1, (hit - 1) / np.maximum(rank - 1, 1), 1)
    average = np.add.reduceat(precision, start) / count
    trapezoid = np.add.reduceat((precision + one_earlier) / 2, start) / count
    return np.stack([rank[start], average, trapezoid, precision[start + count - 1]])


def _pair_scores(
    pairs: Mapping[tuple[Any, Any], list[np.ndarray]],
) -> dict[tuple[Any, Any], dict[str, float]]:
    """Return rank-1, mAP, mINP and the number of queries by (query camera, gallery camera)."""
    result = {}
    for cameras in sorted(pairs):
        first, average, _, last = _scores(pairs[cameras])
        result[cameras] = {
            "rank-1": float((first == 1).mean()),
            "mAP": float(average.mean()),
            "mINP": float(last.mean()),
            "queries": len(first),
        }
    return result


def _check_finite(rows: np.ndarray, start: int) -> None:
    finite = np.isfinite(rows)
    if not finite.all():
        i, j = np.argwhere(~finite)[0]
        raise InputError(
            f"Distances must be finite, got {rows[i, j]} between query {start + i} and gallery "
            f"image {j}. Look for NaN, or for features too large to square in float32."
        )
