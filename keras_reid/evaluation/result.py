"""Result of a retrieval evaluation: scores with their protocol."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, counted, invalid
from keras_reid.evaluation.text import columns


@dataclass(frozen=True)
class RankingProtocol:
    """Protocol of a result. Two results are comparable only if their protocols agree.

    `gallery_size` counts the ranked images, except unlabeled ones. `invalid_queries` had no true
    match after the junk rule; by `invalid` they were left out ("drop") or counted as 0 ("zero").
    `repeats` random galleries or halves, drawn with `seed`, were averaged; 1 and None if the
    protocol draws nothing.
    """

    name: str
    junk: str
    valid_queries: int
    invalid_queries: int
    invalid: str
    gallery_size: int
    distance: str
    reranking: str = "none"
    dataset: str | None = None
    average_precision: str = "mAP: rank precision; mAP_trapezoid: trapezoid"
    ties: str = "by gallery index"
    repeats: int = 1
    seed: int | None = None


CameraPair = tuple[Any, Any]  # cameras of query and gallery
# Scores of `RankingResult`, and the attribute of `QueryScores` with the scores of each query.
MEANS = {"mAP": "average_precision", "mAP_trapezoid": "trapezoid", "mINP": "inverse_penalty"}


@dataclass(frozen=True, eq=False)
class QueryScores:
    """Scores of the v queries that have a true match.

    Attributes:
        query: rows of the v queries, int (v,).
        first: rank from 1 of the first true match in each repetition of the protocol, (v, repeats).
        average_precision, trapezoid, inverse_penalty: scores of each query, (v,), for `mAP`,
            `mAP_trapezoid` and `mINP` of `RankingResult`.
        queries: number of all queries.
    """

    query: np.ndarray
    first: np.ndarray
    average_precision: np.ndarray
    trapezoid: np.ndarray
    inverse_penalty: np.ndarray
    queries: int

    @staticmethod
    def joined(parts: list["QueryScores"]) -> "QueryScores":
        """Return the scores of several rankings, one after the other."""
        *arrays, queries = zip(*(vars(part).values() for part in parts), strict=True)
        joined: Any = [*map(np.concatenate, arrays), sum(queries)]
        return QueryScores(*joined)


@dataclass(frozen=True, eq=False)
class RankingResult:
    """Retrieval scores as fractions in [0, 1], means over the queries.

    Attributes:
        cmc: float64 (max_rank,); `cmc[k - 1]` is the fraction of queries with a true match among
            the k nearest (constant beyond the end of the gallery).
        mAP: mean of `(1/n) Σ_k k / r_k`, r_k the rank of the k-th of n true matches.
        mAP_trapezoid: as mAP, but each precision `k / r_k` is averaged with the precision at the
            rank before it (1 if `r_k` is 1), as in the Matlab code of Market-1501 and MARS.
        mINP: mean of `n / r_n`, the precision at the last true match.
        protocol: protocol of the evaluation.
        per_query: scores of each query.
        camera_pairs: rank-1, mAP, mINP and number of queries by (query camera, gallery camera).

    Example:
        >>> from keras_reid.evaluation import Labels, rank
        >>> result = rank([[0.1, 0.2]], Labels([7]), Labels([9, 7]), "no-camera")
        >>> result.cmc[:2].tolist(), result.mINP
        ([0.0, 1.0], 0.5)
    """

    cmc: np.ndarray
    mAP: float
    mAP_trapezoid: float
    mINP: float
    protocol: RankingProtocol
    per_query: QueryScores = field(repr=False)
    camera_pairs: dict[CameraPair, dict[str, float]] = field(default_factory=dict, repr=False)

    def interval(
        self, score: str, level: float = 0.95, samples: int = 1000, seed: int = 0
    ) -> tuple[float, float]:
        """Return the bounds of a confidence interval of a score over other queries of this kind.

        The percentile bootstrap (Efron, 1979): queries are drawn with replacement, `samples` times.
        It does not cover other galleries or other training runs.

        Args:
            score: "mAP", "mAP_trapezoid", "mINP" or "rank-K".
            level: between 0 and 1.
            samples: number of draws.
            seed: seed of the draws.

        Raises:
            InputError: an unknown score or level, or a protocol that ranks queries repeatedly.
        """
        values = self._values(score)
        checks.within("(0, 1)", "0.95 is usual.", level=level)
        checks.at_least(1, "1000 is usual.", samples=samples)
        if self.protocol.name == "viper":
            raise InputError(
                "Protocol 'viper' has no interval, because it ranks the same queries many times. "
                "Compare scores of several seeds."
            )
        if self.protocol.invalid == "zero":
            values = np.concatenate([values, np.zeros(self.per_query.queries - len(values))])
        random = np.random.default_rng(seed)
        means = [random.choice(values, len(values)).mean() for _ in range(samples)]
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _values(self, score: str) -> Any:
        """Return the values of the queries, with the score as their mean."""
        if score in MEANS:
            return getattr(self.per_query, MEANS[score])
        if not re.fullmatch("rank-[1-9][0-9]*", score):
            raise invalid("score", f"one of {', '.join(MEANS)} or rank-K", score)
        return (self.per_query.first <= int(score[5:])).mean(axis=1)

    def rank(self, k: int) -> float:
        """Return the fraction of queries with a true match among the k nearest: `cmc[k - 1]`.

        Raises:
            InputError: k is not in 1..max_rank.
        """
        checks.within(f"[1, {len(self.cmc)}]", "Evaluate with a larger max_rank.", k=k)
        return float(self.cmc[k - 1])

    def to_dict(self) -> dict[str, object]:
        """Return scores and protocol in plain Python types; scores are fractions in [0, 1]."""
        scores = {name: getattr(self, name) for name in MEANS}
        result = {**scores, "cmc": self.cmc.tolist(), "protocol": asdict(self.protocol)}
        if self.camera_pairs:
            result["camera_pairs"] = [
                {"query_camera": query, "gallery_camera": gallery, **pair}
                for (query, gallery), pair in self.camera_pairs.items()
            ]
        return result

    def __str__(self) -> str:
        """Return a table: scores in percent, then the protocol."""
        protocol = self.protocol
        scores = {f"rank-{k}": self.rank(k) for k in (1, 5, 10, 20) if k <= len(self.cmc)}
        names = "mAP (rank precision)", "mAP (trapezoid)", "mINP"
        scores |= {name: getattr(self, mean) for name, mean in zip(names, MEANS, strict=True)}
        treatment = {"drop": "dropped", "zero": "counted as 0"}[protocol.invalid]
        queries = f"{protocol.valid_queries:,} valid, {protocol.invalid_queries:,} without a match"
        drawn = f", mean of {protocol.repeats} drawn" if protocol.seed is not None else ""
        rows = {
            "data set": protocol.dataset or "not named",
            **{name: f"{100 * value:.2f} %" for name, value in scores.items()},
            "queries": f"{queries} ({treatment})",
            "gallery": counted(protocol.gallery_size, "image"),
            "distance": protocol.distance,
            "re-ranking": protocol.reranking,
            "protocol": f"{protocol.name}: junk is {protocol.junk}{drawn}",
            "ties": protocol.ties,
        }
        for (query, gallery), pair in self.camera_pairs.items():
            values = (f"{name} {100 * pair[name]:6.2f} %" for name in ("rank-1", "mAP", "mINP"))
            row = f"{'  '.join(values)}  of {counted(int(pair['queries']), 'query')}"
            rows[f"camera {query} to {gallery}"] = row
        return columns(rows)
