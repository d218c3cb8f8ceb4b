"""Retrieval 1:N, closed set: CMC, mean average precision and mINP under a declared protocol.

Every score follows from the ranks of the true matches, and a rank is a count of smaller
distances: so each row is sorted by value, never argsorted, which takes a quarter of the time.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.features import BLOCK_ELEMENTS, Features, distance_rows
from keras_reid.evaluation.labels import NOBODY, Labels, camera_codes, identity_codes
from keras_reid.evaluation.result import RankingProtocol, RankingResult
from keras_reid.evaluation.rows import DistanceRows

JUNK = {
    "market1501": "same identity in the same camera, and identity -1",
    "no-camera": "identity -1 only",
}
INVALID = ("drop", "zero")
Match = tuple[np.ndarray, np.ndarray]


def rank(
    distances: np.ndarray | tuple[Features, Features],
    query_ids: Labels,
    gallery_ids: Labels,
    query_cams: Labels | None = None,
    gallery_cams: Labels | None = None,
    *,
    distance: str | None = None,
    protocol: str = "market1501",
    invalid: str = "drop",
    max_rank: int = 50,
    dataset: str | None = None,
    reranking: str = "none",
    block: int | None = None,
) -> RankingResult:
    """CMC, mAP (both formulas) and mINP of ranking the gallery for each query.

    Junk is left out of a query's ranking: under "market1501" gallery images of the query's
    identity in the query's camera, and identity -1; under "no-camera" identity -1 only, so no
    image should be in both sets. Other identities in the same camera stay, and so do
    distractors: identities that no query has, such as Market-1501's 0. Equal distances are
    ranked by gallery index.

    Args:
        distances: (q, g), smaller is more alike, may be memory-mapped; or the tuple (query,
            gallery) of features, arrays or tensors, to be compared in float32: (n, d), stripes
            (n, s, d), or the mapping of both as embedding and local.
        query_ids: (q,) integers or strings.
        gallery_ids: (g,) of the same kind.
        query_cams: (q,) integers or strings; "no-camera" does not look at them.
        gallery_cams: (g,) of the same kind.
        distance: for features (n, d), or embedding, "euclidean" (default) or "cosine", under
            which a zero vector is at distance 1 from everything; for stripes (n, s, d), or local,
            "local": the aligned distance, from the top of the images down; for mappings
            "global_local": `|x/|x| − y/|y||²` of embedding plus the aligned distance of local
            features of length 1 (DMLI of AlignedReID++). For a matrix the name to record.
        protocol: "market1501" or "no-camera".
        invalid: queries without a true match are left out ("drop") or count as 0 ("zero").
        max_rank: length of the CMC.
        dataset: name to record.
        reranking: name to record.
        block: queries at a time; by default as many as make 16 MiB of float32 distances.

    Returns:
        RankingResult: fractions in [0, 1] with the protocol.

    Raises:
        InputError: sizes that do not fit, values that are not finite, an unknown name, missing
            cameras, no gallery, or no query with a true match.

    Source: Zheng et al., ICCV 2015 (protocol, trapezoid AP); Ye et al., TPAMI 2022,
    arXiv:2001.04193 (mINP).
    """
    _check_choices(protocol, invalid, max_rank, block)
    source = distance_rows(distances, distance)
    q, g = shape = source.shape
    if not q or not g:
        raise InputError(
            f"A ranking needs at least one query and one gallery image, received {q} and {g}: "
            "check both splits."
        )
    query_id, gallery_id = identity_codes(query_ids, gallery_ids, shape)
    query_cam, gallery_cam = camera_codes(query_cams, gallery_cams, shape, protocol)
    nobody = np.flatnonzero(gallery_id == NOBODY)
    matches = _matches(query_id, gallery_id, query_cam, gallery_cam)
    scores = _scores_in_blocks(source, matches, nobody, block or max(1, BLOCK_ELEMENTS // g))
    valid = scores.shape[1]
    if not valid:
        raise InputError(
            f"A score needs a query with a true match after the junk rule, received {q} queries "
            "without: check identities and cameras, or use protocol='no-camera'."
        )
    stamp = RankingProtocol(
        name=protocol,
        junk=JUNK[protocol],
        valid_queries=valid,
        invalid_queries=q - valid,
        invalid=invalid,
        gallery_size=g - len(nobody),
        distance=source.distance,
        reranking=reranking,
        dataset=dataset,
    )
    return _result(scores, valid if invalid == "drop" else q, max_rank, stamp)


def _scores_in_blocks(
    source: DistanceRows, matches: Iterator[Match], nobody: np.ndarray, step: int
) -> np.ndarray:
    """`_scores` of all queries that have a hit, `step` queries in memory at a time."""
    scores = []
    for start in range(0, source.shape[0], step):
        rows = source.rows(start, start + step)
        _check_finite(rows, start)
        rows[:, nobody] = np.inf
        block = zip(rows, islice(matches, len(rows)), strict=True)
        ranks = [_hit_ranks(row, hits, junk) for row, (hits, junk) in block]
        scores.append(_scores([r for r in ranks if len(r)]))
    return np.concatenate(scores, axis=1)


def _matches(
    query_id: np.ndarray, gallery_id: np.ndarray, query_cam: np.ndarray, gallery_cam: np.ndarray
) -> Iterator[Match]:
    """For each query the gallery indices, ascending, of its true matches and of its junk."""
    order = np.argsort(gallery_id, kind="stable")
    begin = np.searchsorted(gallery_id[order], query_id, "left")
    end = np.searchsorted(gallery_id[order], query_id, "right")
    for first, last, camera in zip(begin, end, query_cam, strict=True):
        same = order[first:last]
        seen_here = gallery_cam[same] == camera
        yield same[~seen_here], same[seen_here]


def _hit_ranks(row: np.ndarray, hits: np.ndarray, junk: np.ndarray) -> np.ndarray:
    """Ranks from 1, ascending, of `hits` in a stable sort of `row` (g,) without `junk`."""
    row[junk] = np.inf
    values, ordered = row[hits], np.sort(row)
    before = np.searchsorted(ordered, values, "left")
    tied = np.searchsorted(ordered, values, "right") - before > 1
    for value in set(values[tied]):
        at = values == value
        before[at] += np.searchsorted(np.flatnonzero(row == value), hits[at])
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


def _result(
    scores: np.ndarray, queries: int, max_rank: int, protocol: RankingProtocol
) -> RankingResult:
    first, average, trapezoid, last_precision = scores
    found = np.bincount(first.astype(np.int64), minlength=max_rank + 1)[1 : max_rank + 1]
    return RankingResult(
        cmc=np.cumsum(found) / queries,
        mAP=float(average.sum() / queries),
        mAP_trapezoid=float(trapezoid.sum() / queries),
        mINP=float(last_precision.sum() / queries),
        protocol=protocol,
    )


def _check_choices(protocol: str, invalid: str, max_rank: int, block: int | None) -> None:
    for what, value, known in (("protocol", protocol, JUNK), ("invalid", invalid, INVALID)):
        if value not in known:
            raise InputError(
                f"{what} is one of {', '.join(known)}, received {value!r}: choose one of these."
            )
    for what, number in (("max_rank", max_rank), ("block", 1 if block is None else block)):
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
