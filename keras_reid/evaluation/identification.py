"""1:N open-set identification: find a person who may not be enrolled."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import Distances
from keras_reid.evaluation.labels import Labeled
from keras_reid.evaluation.text import columns
from keras_reid.evaluation.verification import Threshold, percent, rates, threshold_at_far, trials

SHOWN_FARS = (0.01, 0.1)


@dataclass(frozen=True, eq=False)
class OpenSetResult:
    """Ranks and distances of mates, and distances of non-mated probes to the gallery.

    `DIR(τ, r)` is the fraction of the known probes with a mate at `d <= τ` among the r nearest
    gallery images. `FAR(τ)` is the fraction of the unknown probes, who have no
    mate, with `min d <= τ`.

    Attributes:
        mate: (n,) distance of each known probe to its nearest mate.
        mate_rank: (n,) rank of that mate from 1, equal distances by gallery index.
        non_mated: (m,) sorted distances of the unknown probes to the nearest gallery image.
        left_out: number of probes with mates in their own camera only, neither known nor unknown.

    Example:
        >>> import numpy as np
        >>> result = OpenSetResult(np.array([0.2, 0.6]), np.array([1, 1]), np.array([0.5]), 0)
        >>> result.dir_at_far(0)  # one of two mates is nearer than the unknown probe
        0.5
    """

    mate: np.ndarray
    mate_rank: np.ndarray
    non_mated: np.ndarray
    left_out: int

    def threshold_at_far(self, far: float) -> Threshold:
        """Return the threshold at the largest distance with `FAR(τ) <= far`.

        The distance is -inf if no distance has such a FAR.

        Raises:
            InputError: `far` is outside [0, 1], or `0 < far < 1 / m`.
        """
        return threshold_at_far(self.non_mated, np.sort(self.mate), far, "search")

    def dir_at_far(self, far: float, rank: int = 1) -> float:
        """Return `max DIR(τ, rank)` over all τ with `FAR(τ) <= far`.

        Raises:
            InputError: as `threshold_at_far`, or a rank below 1.
        """
        checks.at_least(1, rank=rank)
        accepted = self.threshold_at_far(far).accepts(self.mate)
        return float((accepted & (self.mate_rank <= rank)).mean())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; None replaces rates that need more unknown probes."""
        return {
            "known_probes": len(self.mate),
            "unknown_probes": len(self.non_mated),
            "left_out": self.left_out,
            "rank-1": float((self.mate_rank == 1).mean()),
            "dir_at_far": rates(self.dir_at_far, SHOWN_FARS, len(self.non_mated)),
        }

    def __str__(self) -> str:
        known, unknown = len(self.mate), len(self.non_mated)
        searches = f"{known:,} mated, {unknown:,} non-mated"
        if self.left_out:
            searches += f", {self.left_out:,} left out (no mate in another camera)"
        few = "not resolvable with so few non-mated searches"
        shares = rates(self.dir_at_far, SHOWN_FARS, unknown)
        rows = {
            "searches": searches,
            "rank-1 (no threshold)": f"{100 * (self.mate_rank == 1).mean():.2f} %",
            **{f"DIR at FAR {far}": percent(share, few) for far, share in shares.items()},
        }
        return columns(rows)


def open_set(
    distances: Distances, query: Labeled, gallery: Labeled, protocol: str = "market1501"
) -> OpenSetResult:
    """Identify probes among known persons, where probes may be non-mated.

    Unknown probes have an identity that is not in the gallery. Gallery images of the probe's
    identity in the probe's camera, and unlabeled ones, are left out.

    Args:
        distances: (q, g) or features, as in `rank`.
        query: labels of the q query images.
        gallery: labels of the g gallery images.
        protocol: "market1501", or "no-camera", which ignores cameras.

    Raises:
        InputError: as `rank`, or there are no known or no unknown probes.

    Example:
        >>> import numpy as np
        >>> from keras_reid.evaluation import Labels
        >>> distances = np.array([[0.2, 0.9], [0.5, 0.6]])  # of persons 7 and 9
        >>> result = open_set(distances, Labels([7, 9]), Labels([7, 8]), "no-camera")
        >>> result.mate.tolist(), result.non_mated.tolist(), result.dir_at_far(0)
        ([0.2], [0.5], 1.0)

    Source: Phillips, Grother, Micheals: Handbook of Face Recognition, 2011 (DIR and FAR).
    """
    mates, ranks, non_mated, left_out = [], [], [], 0
    for rows, same, junk in trials(distances, query, gallery, protocol):
        rows[junk] = np.inf
        for row, own in zip(rows, same, strict=True):
            mate = np.where(own, row, np.inf)
            nearest = mate.min(initial=np.inf)
            if not own.any():
                non_mated.append(row.min(initial=np.inf))
            elif nearest == np.inf:
                left_out += 1
            else:
                mates.append(nearest)
                before = row[: np.argmin(mate)] == nearest
                ranks.append(1 + (row < nearest).sum() + before.sum())
    if not mates or not non_mated:
        numbers = f"{len(mates)} and {len(non_mated)}"
        raise InputError(f"An open set needs known and unknown probes, got {numbers}.")
    return OpenSetResult(np.array(mates), np.array(ranks), np.sort(non_mated), left_out)
