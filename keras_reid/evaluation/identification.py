"""1:N open-set identification: who is this, if anybody known?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import Compared
from keras_reid.evaluation.labels import Labeled
from keras_reid.evaluation.threshold import Threshold, rates, threshold_at_far
from keras_reid.evaluation.trials import trials

SHOWN_FARS = (0.01, 0.1)


@dataclass(frozen=True, eq=False)
class OpenSetResult:
    """Where probes find their mates, and how near non-mated probes come to somebody.

    `DIR(τ, r)` is the fraction of the known probes whose nearest mate is among the r nearest
    gallery images and at `d <= τ`; `FAR(τ)` that of the unknown probes, who have no mate, with
    `min d <= τ`.

    Attributes:
        mate: (n,) distance of each known probe to its nearest mate.
        mate_rank: (n,) rank of that mate from 1, equal distances by gallery index.
        non_mated: (m,) sorted distances of the unknown probes to the nearest gallery image.
        left_out: probes whose mates are all of the same camera, neither known nor unknown.
    """

    mate: np.ndarray
    mate_rank: np.ndarray
    non_mated: np.ndarray
    left_out: int

    def threshold_at_far(self, far: float) -> Threshold:
        """The largest distance seen with `FAR(τ) <= far`; -inf where none is.

        Raises:
            InputError: `far` is no fraction, or `0 < far < 1 / m`.
        """
        return threshold_at_far(self.non_mated, np.sort(self.mate), far, "search")

    def dir_at_far(self, far: float, rank: int = 1) -> float:
        """`max DIR(τ, rank)` over all τ with `FAR(τ) <= far`.

        Raises:
            InputError: as `threshold_at_far`, or a rank below 1.
        """
        checks.at_least(1, rank=rank)
        accepted = self.threshold_at_far(far).accepts(self.mate)
        return float((accepted & (self.mate_rank <= rank)).mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain values; rates that these probes cannot resolve are None."""
        return {
            "known_probes": len(self.mate),
            "unknown_probes": len(self.non_mated),
            "left_out": self.left_out,
            "rank-1": float((self.mate_rank == 1).mean()),
            "dir_at_far": rates(self.dir_at_far, SHOWN_FARS, len(self.non_mated)),
        }

    def __str__(self) -> str:
        known, unknown = len(self.mate), len(self.non_mated)
        lines = [f"open set: {known:,} known and {unknown:,} unknown probes"]
        if self.left_out:
            lines[0] += f", {self.left_out:,} left out (mates in the same camera alone)"
        lines.append(f"rank-1 without a threshold: {100 * (self.mate_rank == 1).mean():.2f} %")
        for far, share in rates(self.dir_at_far, SHOWN_FARS, unknown).items():
            value = "not resolvable with so few unknown probes"
            if share is not None:
                value = f"{100 * share:.2f} %"
            lines.append(f"DIR at FAR {100 * float(far):g} %: {value}")
        return "\n".join(lines)


def open_set(
    compared: Compared, query: Labeled, gallery: Labeled, protocol: str = "market1501"
) -> OpenSetResult:
    """Identification among known people of probes who may be non-mated.

    Probes of an identity that the gallery does not hold are the unknown ones. Gallery images of the
    probe's identity in the probe's camera, and unlabeled ones, are not looked at.

    Args:
        compared, query, gallery: as in `rank`.
        protocol: "market1501", or "no-camera", by which cameras are not looked at.

    Raises:
        InputError: as `rank`, or there are no known or no unknown probes.

    Source: Phillips, Grother, Micheals: Handbook of Face Recognition, 2011 (DIR and FAR).
    """
    mates, ranks, non_mated, left_out = [], [], [], 0
    for rows, same, junk in trials(compared, query, gallery, protocol):
        rows[junk] = np.inf
        for row, own in zip(rows, same, strict=True):
            if not own.any():
                non_mated.append(row.min(initial=np.inf))
                continue
            mate = np.where(own, row, np.inf)
            j = int(np.argmin(mate))
            if mate[j] == np.inf:
                left_out += 1
                continue
            mates.append(row[j])
            ranks.append(1 + (row < row[j]).sum() + (row[:j] == row[j]).sum())
    if not mates or not non_mated:
        raise InputError(
            "an open set has probes who are in the gallery and probes who are not: received "
            f"{len(mates)} and {len(non_mated)}; enrol part of the people only"
        )
    return OpenSetResult(np.array(mates), np.array(ranks), np.sort(non_mated), left_out)
