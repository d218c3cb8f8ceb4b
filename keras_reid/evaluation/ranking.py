"""Retrieval 1:N, closed set: CMC, mean average precision and mINP under a declared protocol.

Every score follows from the ranks of the true matches, and a rank is a count of smaller
distances: so each row is sorted by value, never argsorted, which takes a quarter of the time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import Compared, as_rows, matrix_rows
from keras_reid.evaluation.labels import NOBODY, Codes, Labeled, codes
from keras_reid.evaluation.protocols import TIES, Protocol, SingleShot, check_one_set, matches
from keras_reid.evaluation.protocols import halves as random_halves
from keras_reid.evaluation.result import QueryScores, RankingProtocol, RankingResult
from keras_reid.nearest.arrays import Rows


def rank(
    compared: Compared,
    query: Labeled,
    gallery: Labeled,
    protocol: str | Protocol = "market1501",
    *,
    max_rank: int = 50,
    camera_pairs: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RankingResult:
    """CMC, mAP (both formulas) and mINP of ranking the gallery for each query.

    >>> import numpy as np
    >>> from keras_reid.evaluation import Labels
    >>> distances = np.array([[0.1, 0.2, 0.3, 0.4]])
    >>> query = Labels(identity=[7], camera=[0])
    >>> gallery = Labels(identity=[7, 9, 7, 7], camera=[0, 1, 1, 2])
    >>> result = rank(distances, query, gallery)  # the first image is of the query's camera
    >>> result.rank(1), round(result.mAP, 3)
    (0.0, 0.583)

    Args:
        compared: distances (q, g), smaller is more alike: the rows that `compare` gives, a matrix,
            which may be memory-mapped, or the tuple (query, gallery) of features (n, d), compared
            by the Euclidean distance.
        query, gallery: who is on the q and g images and which cameras took them: `Labels`, or
            anything else with `identity` and `camera`, such as `keras_reid.data.PersonImages`.
        protocol: a `Protocol`, or its name.
        max_rank: length of the CMC.
        camera_pairs: also score each query camera against each gallery camera alone.
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
    source = as_rows(compared)
    if source.reranking != "none" and (rule.halves or rule.one_set):
        raise InputError(
            f"a re-ranking looks at all images of both sets, but protocol {protocol.name!r} "
            f"{'ranks halves of them' if rule.halves else 'has each image in both'}, and "
            f"{source.reranking!r} was asked for: leave the re-ranking out"
        )
    q, g = source.shape
    labels = codes(query, gallery, source.shape, not rule.cameras)
    if rule.one_set:
        check_one_set(labels.query, labels.gallery)
    scorer = _Scorer(protocol, labels, camera_pairs, progress)
    scores = scorer.halves(source) if rule.halves else scorer.scores(source, labels)
    valid, total = len(scores.query), scores.queries
    if not valid:
        raise InputError(
            f"a score needs a query with a true match after the junk rule, got {q} queries "
            f"without in a gallery of {g}. Check both splits, identities and cameras, or use "
            "protocol='no-camera'."
        )
    stamp = RankingProtocol(
        name=protocol.name,
        junk=rule.junk,
        valid_queries=valid,
        invalid_queries=total - valid,
        invalid=protocol.invalid,
        gallery_size=g - int((labels.gallery == NOBODY).sum()) - rule.one_set,
        distance=source.name,
        reranking=source.reranking,
        dataset=protocol.dataset,
        ties=TIES[protocol.ties],
        repeats=protocol.repeats if protocol.draws else 1,
        seed=protocol.seed if protocol.draws else None,
    )
    return RankingResult.of(scores, max_rank, stamp, _pair_scores(scorer.pairs))


class _Scorer:
    """Scores rows of distances, a few queries in memory at a time."""

    def __init__(
        self,
        protocol: Protocol,
        labels: Codes,
        camera_pairs: bool,
        progress: Callable[[int, int], None] | None,
    ):
        self.protocol, self.labels, self.progress = protocol, labels, progress
        self.camera_pairs = camera_pairs
        self.pairs: dict[tuple[Any, Any], list[np.ndarray]] = defaultdict(list)
        self.single_shot = None
        if protocol.rule.single_shot:
            self.single_shot = SingleShot(labels.gallery, protocol.repeats, protocol.seed)

    def scores(self, source: Rows, labels: Codes) -> QueryScores:
        """Of all queries that have a true match."""
        count = source.shape[0]
        found = matches(self.protocol.rule.one_set, labels)
        nobody = np.flatnonzero(labels.gallery == NOBODY)
        here = {c: np.flatnonzero(labels.gallery_camera == c) for c in set(labels.gallery_camera)}
        query, scored, drawn = [], [np.empty((4, 0))], []
        for start, rows in source.blocks():
            _check_finite(rows, start)
            rows[:, nobody] = np.inf
            block: Iterator[Any] = zip(rows, islice(found, len(rows)), strict=True)
            ranks = []
            for i, (row, (hits, junk)) in enumerate(block, start):
                if not len(hits):
                    continue
                row[junk] = np.inf
                query.append(i)
                ranks.append(_hit_ranks(row, hits, self.protocol.ties))
                if self.single_shot:
                    drawn.append(self.single_shot.first_ranks(row, labels.query[i], hits))
                if self.camera_pairs:
                    self._by_camera(row, hits, labels.query_camera[i], here)
            scored.append(_scores(ranks))
            if self.progress:
                self.progress(start + len(rows), count)
        first, average, trapezoid, last = np.concatenate(scored, axis=1)
        firsts = np.stack(drawn) if drawn else first[:, None]
        return QueryScores(np.array(query, int), firsts, average, trapezoid, last, count)

    def halves(self, source: Rows) -> QueryScores:
        """Of random halves of the identities, in both directions, one after the other."""
        whole = source.rows(0, source.shape[0])
        query, gallery, *cameras = self.labels[:4]
        drawn = random_halves(query, gallery, self.protocol.repeats, self.protocol.seed)
        parts = []
        for rows, columns in drawn:
            half = whole[np.ix_(rows, columns)]
            own, other = (query[rows], cameras[0][rows]), (gallery[columns], cameras[1][columns])
            for matrix, (a, b) in ((half, (own, other)), (half.T, (other, own))):
                labels = Codes(a[0], b[0], a[1], b[1], self.labels.cameras)
                parts.append(self.scores(matrix_rows(matrix), labels))
        return QueryScores.joined(parts)

    def _by_camera(
        self, row: np.ndarray, hits: np.ndarray, camera: int, here: dict[int, np.ndarray]
    ) -> None:
        cameras, names = self.labels.gallery_camera, self.labels.cameras
        for code in np.unique(cameras[hits]):
            columns = here[code]
            of_camera = np.searchsorted(columns, hits[cameras[hits] == code])
            ranks = _hit_ranks(row[columns], of_camera, self.protocol.ties)
            self.pairs[names[camera], names[code]].append(ranks)


def _hit_ranks(row: np.ndarray, hits: np.ndarray, ties: str) -> np.ndarray:
    """Ranks from 1, ascending, of `hits` in a sort of `row` (g,), in which junk is infinite."""
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
    """First rank, AP, trapezoid AP and `n / r_n` of each query's hit ranks `r_1..r_n`: (4, v)."""
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
    """Of each (query camera, gallery camera): rank-1, mAP, mINP and the queries they are of."""
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
            f"Every distance must be finite, received {rows[i, j]} between query {start + i} and "
            f"gallery image {j}: look for NaN or for features too large to square in float32."
        )
