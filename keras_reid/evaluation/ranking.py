"""Retrieval 1:N, closed set: CMC, mean average precision and mINP under a declared protocol.

Every score follows from the ranks of the true matches, and a rank is a count of smaller
distances: so each row is sorted by value, never argsorted, which takes a quarter of the time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation import protocols
from keras_reid.evaluation.features import BLOCK_ELEMENTS, Features, distance_rows
from keras_reid.evaluation.labels import NOBODY, Labels, camera_codes, identity_codes
from keras_reid.evaluation.result import QueryScores, RankingProtocol, RankingResult
from keras_reid.evaluation.rows import DistanceRows, MatrixRows

INVALID = ("drop", "zero")
TIES = {
    "index": "by gallery index",
    "optimistic": "true matches first: an upper bound",
    "pessimistic": "true matches last: a lower bound",
}
UNFIT_TO_RERANK = {
    "viper": "ranks halves of them",
    "all-vs-all": "has each image in both",
}


def rank(
    distances: np.ndarray | tuple[Features, Features],
    query_ids: Labels,
    gallery_ids: Labels,
    query_cams: Labels | None = None,
    gallery_cams: Labels | None = None,
    *,
    distance: str | None = None,
    protocol: str = "market1501",
    invalid: str | None = None,
    max_rank: int = 50,
    dataset: str | None = None,
    reranking: str = "none",
    reranking_options: Mapping[str, Any] | None = None,
    ties: str = "index",
    camera_pairs: bool = False,
    repeats: int = 10,
    seed: int = 0,
    block: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RankingResult:
    """CMC, mAP (both formulas) and mINP of ranking the gallery for each query.

    Junk is left out of a query's ranking. Other identities in the same camera stay, and so do
    distractors: identities that no query has, such as Market-1501's 0. The protocols:

    - "market1501": junk is gallery images of the query's identity in the query's camera, and
      identity -1. So are "cuhk03" (the newer test, of 767 and 700 identities) and "mars"
      (queries without a true match count as 0; its publications report `mAP_trapezoid`).
    - "no-camera": identity -1 only is junk, so no image should be in both sets.
    - "all-vs-all": one set is query and gallery; the image itself and identity -1 are junk.
    - "cuhk03-classic": as "market1501", but the CMC is the mean over `repeats` galleries of one
      random image of each identity, drawn for each query; mAP and mINP are of the whole gallery.
    - "viper": the mean over `repeats` random halves of the identities that both sides hold, each
      ranked from query to gallery and from gallery to query. It holds the whole matrix.

    Args:
        distances: (q, g), smaller is more alike, may be memory-mapped; or the tuple (query,
            gallery) of features, arrays or tensors, to be compared in float32: (n, d), stripes
            (n, s, d), or the mapping of both as embedding and local.
        query_ids: (q,) integers or strings.
        gallery_ids: (g,) of the same kind.
        query_cams: (q,) integers or strings; "no-camera" and "all-vs-all" do not look at them.
        gallery_cams: (g,) of the same kind.
        distance: for features (n, d), or embedding, "euclidean" (default) or "cosine", under
            which a zero vector is at distance 1 from everything; for stripes (n, s, d), or local,
            "local": the aligned distance, from the top of the images down; for mappings
            "global_local": `|x/|x| − y/|y||²` of embedding plus the aligned distance of local
            features of length 1 (DMLI of AlignedReID++), "visible": the whole and the parts that
            both images show, of global, parts and visibility (`keras_reid.distances.visible`). For
            a matrix the name to record.
        protocol: one of the above.
        invalid: queries without a true match are left out ("drop", default) or count as 0 ("zero",
            default of "mars").
        max_rank: length of the CMC.
        dataset: name to record.
        reranking: for features "none" or a name of `keras_reid.reranking.RERANKERS`; stripes can
            be re-ranked by "k_reciprocal", which then holds their whole distance matrices. For a
            matrix the name to record.
        reranking_options: arguments of the re-ranker, such as `{"k1": 20, "lambda_value": 0.3}`.
        ties: equal distances are ranked by gallery index ("index"), or true matches come before
            ("optimistic") or after all others ("pessimistic"): bounds of what any order gives.
        camera_pairs: also score each query camera against each gallery camera alone.
        repeats, seed: of the protocols that draw.
        block: queries at a time; by default as many as make 16 MiB of float32 distances.
        progress: called with the number of images done and of all, while neighbours are looked
            for by a re-ranker, and while queries are scored.

    Returns:
        RankingResult: fractions in [0, 1] with the protocol.

    Raises:
        InputError: sizes that do not fit, values that are not finite, an unknown name, missing
            cameras, no gallery, or no query with a true match.

    Source: Zheng et al., ICCV 2015 (protocol, trapezoid AP); Ye et al., TPAMI 2022,
    arXiv:2001.04193 (mINP); Li et al., CVPR 2014, and Zhong et al., CVPR 2017 (CUHK03); Gray et
    al., PETS 2007 (VIPeR); Zheng et al., ECCV 2016 (MARS).
    """
    invalid = invalid or ("zero" if protocol == "mars" else "drop")
    _check_choices(protocol, invalid, ties)
    _check_numbers(max_rank=max_rank, block=1 if block is None else block, repeats=repeats)
    if isinstance(distances, tuple) and reranking != "none" and protocol in UNFIT_TO_RERANK:
        raise InputError(
            f"a re-ranking looks at all images of both sets, but protocol {protocol!r} "
            f"{UNFIT_TO_RERANK[protocol]}, and reranking={reranking!r} was asked for: rank a matrix"
        )
    source = distance_rows(distances, distance, reranking, reranking_options or {}, progress)
    q, g = shape = source.shape
    if not q or not g:
        raise InputError(
            f"A ranking needs at least one query and one gallery image, received {q} and {g}: "
            "check both splits."
        )
    ids = identity_codes(query_ids, gallery_ids, shape)
    cameras, names = camera_codes(
        query_cams, gallery_cams, shape, protocol, protocol in protocols.WITHOUT_CAMERAS
    )
    if protocol == "all-vs-all":
        protocols.check_one_set(*ids)
    scorer = _Scorer(
        protocol,
        ties,
        block or max(1, BLOCK_ELEMENTS // g),
        names if camera_pairs else None,
        protocols.SingleShot(ids[1], repeats, seed) if protocol == "cuhk03-classic" else None,
        progress,
    )
    if protocol == "viper":
        scores = scorer.halves(source, ids, cameras, repeats, seed)
    else:
        scores = scorer.scores(source, ids, cameras)
    valid, total = len(scores.query), scores.queries
    if not valid:
        raise InputError(
            f"A score needs a query with a true match after the junk rule, received {q} queries "
            "without: check identities and cameras, or use protocol='no-camera'."
        )
    options = ", ".join(f"{key}={value}" for key, value in (reranking_options or {}).items())
    stamp = RankingProtocol(
        name=protocol,
        junk=protocols.JUNK[protocol],
        valid_queries=valid,
        invalid_queries=total - valid,
        invalid=invalid,
        gallery_size=g - int((ids[1] == NOBODY).sum()) - (protocol == "all-vs-all"),
        distance=source.distance,
        reranking=f"{reranking}({options})" if options else reranking,
        dataset=dataset,
        ties=TIES[ties],
        repeats=repeats if protocol in protocols.REPEATED else 1,
        seed=seed if protocol in protocols.REPEATED else None,
    )
    return RankingResult.of(scores, max_rank, stamp, _pair_scores(scorer.pairs))


class _Scorer:
    """Scores rows of distances, `step` queries in memory at a time."""

    def __init__(
        self,
        protocol: str,
        ties: str,
        step: int,
        cameras: list | None,
        single_shot: protocols.SingleShot | None,
        progress: Callable[[int, int], None] | None,
    ):
        self.protocol, self.ties, self.step = protocol, ties, step
        self.cameras, self.single_shot, self.progress = cameras, single_shot, progress
        self.pairs: dict[tuple, list[np.ndarray]] = defaultdict(list)

    def scores(
        self,
        source: DistanceRows,
        ids: tuple[np.ndarray, np.ndarray],
        cameras: tuple[np.ndarray, np.ndarray],
    ) -> QueryScores:
        """Of all queries that have a true match."""
        count = source.shape[0]
        found = protocols.matches(self.protocol, *ids, *cameras)
        nobody = np.flatnonzero(ids[1] == NOBODY)
        here = {code: np.flatnonzero(cameras[1] == code) for code in np.unique(cameras[1])}
        query, scored, drawn = [], [np.empty((4, 0))], []
        for start in range(0, count, self.step):
            rows = source.rows(start, start + self.step)
            _check_finite(rows, start)
            rows[:, nobody] = np.inf
            block: Iterator[Any] = zip(rows, islice(found, len(rows)), strict=True)
            ranks = []
            for i, (row, (hits, junk)) in enumerate(block, start):
                if not len(hits):
                    continue
                row[junk] = np.inf
                query.append(i)
                ranks.append(_hit_ranks(row, hits, self.ties))
                if self.single_shot:
                    drawn.append(self.single_shot.first_ranks(row, ids[0][i], hits))
                if self.cameras is not None:
                    self._by_camera(row, hits, cameras[0][i], cameras[1], here)
            scored.append(_scores(ranks))
            if self.progress:
                self.progress(min(start + self.step, count), count)
        first, average, trapezoid, last = np.concatenate(scored, axis=1)
        firsts = np.stack(drawn) if drawn else first[:, None]
        return QueryScores(np.array(query, int), firsts, average, trapezoid, last, count)

    def halves(
        self,
        source: DistanceRows,
        ids: tuple[np.ndarray, np.ndarray],
        cameras: tuple[np.ndarray, np.ndarray],
        repeats: int,
        seed: int,
    ) -> QueryScores:
        """Of random halves of the identities, in both directions, one after the other."""
        whole = source.rows(0, source.shape[0])
        parts = []
        for rows, columns in protocols.halves(*ids, repeats, seed):
            half = whole[np.ix_(rows, columns)]
            labels = [(both[0][rows], both[1][columns]) for both in (ids, cameras)]
            parts.append(self.scores(MatrixRows(half, source.distance), *labels))
            back = [(gallery, query) for query, gallery in labels]
            parts.append(self.scores(MatrixRows(half.T, source.distance), *back))
        return QueryScores.joined(parts)

    def _by_camera(
        self,
        row: np.ndarray,
        hits: np.ndarray,
        camera: int,
        gallery_cam: np.ndarray,
        here: dict[int, np.ndarray],
    ) -> None:
        assert self.cameras is not None
        for code in np.unique(gallery_cam[hits]):
            columns = here[code]
            of_camera = np.searchsorted(columns, hits[gallery_cam[hits] == code])
            ranks = _hit_ranks(row[columns], of_camera, self.ties)
            self.pairs[self.cameras[camera], self.cameras[code]].append(ranks)


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


def _pair_scores(pairs: Mapping[tuple, list[np.ndarray]]) -> dict[tuple, dict[str, float]]:
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


def _check_choices(protocol: str, invalid: str, ties: str) -> None:
    for what, value, known in (
        ("protocol", protocol, protocols.JUNK),
        ("invalid", invalid, INVALID),
        ("ties", ties, TIES),
    ):
        if value not in known:
            raise InputError(
                f"{what} is one of {', '.join(known)}, received {value!r}: choose one of these."
            )


def _check_numbers(**numbers: int) -> None:
    for what, number in numbers.items():
        if number < 1:
            raise InputError(f"{what} is at least 1, received {number}: pass a larger one.")


def _check_finite(rows: np.ndarray, start: int) -> None:
    finite = np.isfinite(rows)
    if not finite.all():
        i, j = np.argwhere(~finite)[0]
        raise InputError(
            f"Every distance must be finite, received {rows[i, j]} between query {start + i} and "
            f"gallery image {j}: look for NaN or for features too large to square in float32."
        )
