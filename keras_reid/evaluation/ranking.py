"""Retrieval 1:N, closed set: CMC, mean average precision and mINP under a declared protocol.

Every score follows from the ranks of the true matches, and a rank is a count of smaller distances.
Each row is therefore sorted by value, which takes a quarter of the time of argsort.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, invalid
from keras_reid.evaluation.comparison import Distances, as_rows, matrix_rows
from keras_reid.evaluation.labels import UNLABELED, Codes, Labeled
from keras_reid.evaluation.protocols import TIES, Protocol, SingleShot
from keras_reid.evaluation.result import CameraPair, QueryScores, RankingProtocol, RankingResult
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

    Example:
        >>> import numpy as np
        >>> from keras_reid.evaluation import Labels
        >>> distances = np.array([[0.1, 0.2, 0.3, 0.4]])
        >>> query = Labels(identity=[7], camera=[0])
        >>> gallery = Labels(identity=[7, 9, 7, 7], camera=[0, 1, 1, 2])
        >>> result = rank(distances, query, gallery)  # the first image is of the query's camera
        >>> result.rank(1), round(result.mAP, 3)
        (0.0, 0.583)

    Args:
        distances: the result of `compare`, a matrix (q, g), or a tuple (query, gallery) of features
            (n, d). The matrix may be memory-mapped. Smaller means more similar. Features are
            compared by Euclidean distance.
        query: identities and cameras of the q images: `Labels`, or another object with `identity`
            and `camera`, such as `keras_reid.data.PersonImages`.
        gallery: identities and cameras of the g images.
        protocol: a `Protocol`, or its name.
        max_rank: length of the CMC.
        camera_pairs: also score each pair of a query camera and a gallery camera, if the
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
        fix = "Re-ranking compares the images of each side with each other, too."
        raise invalid("reranking", f"none for protocol {protocol.name!r}", source.reranking, fix)
    labels = protocol.codes(query, gallery, source.shape)
    scorer = _Scorer(protocol, camera_pairs and rule.cameras, progress)
    scores = (scorer.halves if rule.halves else scorer.scores)(source, labels)
    if not len(scores.query):
        sizes = f"{labels.query.size} queries and {labels.gallery.size} gallery images"
        fix = "Check identities and cameras, or use protocol='no-camera'."
        raise InputError(f"No query has a true match after the junk rule, got {sizes}. {fix}")
    return scorer.result(source, scores, labels.gallery, max_rank)


@dataclass
class _Scorer:
    """Score rows of distances, a few queries in memory at a time."""

    protocol: Protocol
    camera_pairs: bool
    progress: Callable[[int, int], None] | None
    pairs: dict[CameraPair, list[np.ndarray]] = field(default_factory=dict)

    def scores(self, source: Rows, labels: Codes) -> QueryScores:
        """Return the scores of all queries that have a true match."""
        protocol = self.protocol
        single_shot = SingleShot(labels.gallery, protocol) if protocol.rule.single_shot else None
        query, scored, drawn = [], [np.empty((4, 0))], []
        junk = np.flatnonzero(labels.gallery == UNLABELED)
        for start, rows in source.blocks():
            _check_finite(rows, start)
            rows[:, junk] = np.inf
            ranks = []
            for i, row in enumerate(rows, start):
                same = np.flatnonzero(labels.gallery == labels.query[i])
                here = labels.gallery_camera[same] == labels.query_camera[i]
                row[same[here]] = np.inf
                hits = same[~here]
                if not len(hits):
                    continue
                query.append(i)
                ranks.append(_hit_ranks(row, hits, protocol.ties))
                if single_shot:
                    drawn.append(single_shot.first_ranks(row, labels.query[i], hits))
                if self.camera_pairs:
                    self._by_camera(row, hits, labels, i)
            scored.append(_scores(ranks))
            if self.progress:
                self.progress(start + len(rows), source.shape[0])
        first, average, trapezoid, last = np.concatenate(scored, axis=1)
        firsts = np.stack(drawn) if drawn else first[:, None]
        return QueryScores(np.array(query, int), firsts, average, trapezoid, last, source.shape[0])

    def halves(self, source: Rows, labels: Codes) -> QueryScores:
        """Return the scores of random halves of the identities, in both directions."""
        whole, parts = source.rows(0, source.shape[0]), []
        both = np.intersect1d(labels.query, labels.gallery[labels.gallery != UNLABELED])
        random = np.random.default_rng(self.protocol.seed)
        for _ in range(self.protocol.repeats):
            persons = random.permutation(both)[: max(1, len(both) // 2)]
            q, g = (np.flatnonzero(np.isin(side, persons)) for side in labels[:2])
            half, matrix = labels.part(q, g), whole[np.ix_(q, g)]
            parts.append(self.scores(matrix_rows(matrix), half))
            parts.append(self.scores(matrix_rows(matrix.T), half.swapped()))
        return QueryScores.joined(parts)

    def result(
        self, source: Rows, scores: QueryScores, gallery: np.ndarray, max_rank: int
    ) -> RankingResult:
        """Return the means over the queries that count.

        Args:
            source: ranked distances.
            scores: scores of the queries.
            gallery: (g,) codes of the identities.
            max_rank: length of the CMC.
        """
        protocol, rule, valid = self.protocol, self.protocol.rule, len(scores.query)
        settings: dict[str, Any] = {**vars(protocol), "ties": TIES[protocol.ties]}
        drawn = rule.single_shot or rule.halves
        stamp = RankingProtocol(
            **settings if drawn else {**settings, "repeats": 1, "seed": None},
            junk=rule.junk,
            valid_queries=valid,
            invalid_queries=scores.queries - valid,
            gallery_size=int((gallery != UNLABELED).sum()) - rule.one_set,
            distance=source.name,
            reranking=source.reranking,
        )
        count = valid if protocol.invalid == "drop" else scores.queries
        ranks = np.bincount(scores.first.astype(np.int64).ravel(), minlength=max_rank + 1)
        cmc = np.cumsum(ranks[1 : max_rank + 1]) / (count * scores.first.shape[1])
        arrays = scores.average_precision, scores.trapezoid, scores.inverse_penalty
        mean_ap, trapezoid, mean_inp = (float(values.sum() / count) for values in arrays)
        by_camera = {
            cameras: _means(_scores(self.pairs[cameras])) for cameras in sorted(self.pairs)
        }
        return RankingResult(cmc, mean_ap, trapezoid, mean_inp, stamp, scores, by_camera)

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


def _means(scores: np.ndarray) -> dict[str, float]:
    """Return rank-1, mAP, mINP and the number of queries of `_scores`."""
    first, average, _, last = scores
    rank1, mean_ap, mean_inp = (float(values.mean()) for values in (first == 1, average, last))
    return {"rank-1": rank1, "mAP": mean_ap, "mINP": mean_inp, "queries": len(first)}


def _check_finite(rows: np.ndarray, start: int) -> None:
    finite = np.isfinite(rows)
    if not finite.all():
        i, j = np.argwhere(~finite)[0]
        pair = f"{rows[i, j]} between query {start + i} and gallery image {j}"
        fix = "Look for NaN, or for features too large to square in float32."
        raise InputError(f"Distances must be finite, got {pair}. {fix}")
