"""The value that a retrieval evaluation returns: scores with their protocol inside."""

import json
from dataclasses import asdict, dataclass

import numpy as np

from keras_reid.errors import InputError


@dataclass(frozen=True)
class RankingProtocol:
    """How a ranking was scored: two results compare only where this agrees.

    `gallery_size` counts the images that were ranked, without those of identity -1.
    `invalid_queries` had no true match left after the junk rule; `invalid` says whether
    they were left out ("drop") or counted as 0 ("zero").
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


@dataclass(frozen=True, eq=False)
class RankingResult:
    """Retrieval scores as fractions in [0, 1], means over the queries.

    Attributes:
        cmc: float64 (max_rank,); `cmc[k - 1]` is the share of queries whose first true
            match is among the k nearest (constant beyond the end of the gallery).
        mAP: mean of `(1/n) Σ_k k / r_k`, r_k the rank of the k-th of n true matches.
        mAP_trapezoid: the same with each precision averaged with that one rank earlier, as
            in the Matlab code of Market-1501 and MARS.
        mINP: mean of `n / r_n`, the precision at the last true match.
        protocol: how the scores were made.
    """

    cmc: np.ndarray
    mAP: float
    mAP_trapezoid: float
    mINP: float
    protocol: RankingProtocol

    def rank(self, k: int) -> float:
        """Share of queries with a true match among the k nearest: `cmc[k - 1]`.

        Raises:
            InputError: k is not in 1..max_rank.
        """
        if not 1 <= k <= len(self.cmc):
            raise InputError(
                f"This result holds ranks 1 to {len(self.cmc)}, received {k}: "
                "evaluate again with a larger max_rank."
            )
        return float(self.cmc[k - 1])

    def as_dict(self) -> dict[str, object]:
        """Scores and protocol in plain Python types; scores are fractions in [0, 1]."""
        scores = {name: getattr(self, name) for name in ("mAP", "mAP_trapezoid", "mINP")}
        return {**scores, "cmc": self.cmc.tolist(), "protocol": asdict(self.protocol)}

    def to_json(self) -> str:
        """`as_dict` as JSON text."""
        return json.dumps(self.as_dict(), indent=2)

    def __str__(self) -> str:
        """One table: scores in percent, then the protocol."""
        protocol = self.protocol
        percent = {
            **{f"rank-{k}": self.rank(k) for k in (1, 5, 10, 20) if k <= len(self.cmc)},
            "mAP (rank precision)": self.mAP,
            "mAP (trapezoid)": self.mAP_trapezoid,
            "mINP": self.mINP,
        }
        fate = {"drop": "dropped", "zero": "counted as 0"}[protocol.invalid]
        queries = f"{protocol.valid_queries:,} valid, {protocol.invalid_queries:,} without a match"
        rows = {
            "data set": protocol.dataset or "not named",
            **{name: f"{100 * value:.2f} %" for name, value in percent.items()},
            "queries": f"{queries} ({fate})",
            "gallery": f"{protocol.gallery_size:,} images",
            "distance": protocol.distance,
            "re-ranking": protocol.reranking,
            "protocol": f"{protocol.name}: junk is {protocol.junk}",
            "ties": protocol.ties,
        }
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
