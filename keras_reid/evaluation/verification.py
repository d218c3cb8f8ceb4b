"""1:1 verification: decide from a distance if two images show one person."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.evaluation.comparison import Distances, as_rows
from keras_reid.evaluation.labels import Labeled
from keras_reid.evaluation.protocols import Protocol
from keras_reid.evaluation.text import columns

SHOWN_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Threshold:
    """Distance threshold, which accepts pairs with `distance <= value`.

    Attributes:
        value: the distance; -inf accepts nothing.
        far: the requested false acceptance rate; the measured rate is at most this one.
        measured_far: the false acceptance rate of the value on the measured trials.
        impostors: number of trials: pairs of different persons, or non-mated searches.
        trial: "pair" (1:1, a rate of pairs) or "search" (1:N, a rate of non-mated searches, which
            grows with the gallery).

    Example:
        >>> threshold = Threshold(0.35, far=0.01, measured_far=0.008, impostors=1000, trial="pair")
        >>> threshold.accepts([0.3, 0.35, 0.4]).tolist()
        [True, True, False]
    """

    value: float
    far: float
    measured_far: float
    impostors: int
    trial: str

    def accepts(self, distances: Any) -> np.ndarray:
        """Return booleans of the shape of the distances."""
        return np.asarray(distances) <= self.value


@dataclass(frozen=True, eq=False)
class VerificationResult:
    """Distances of pairs, and the errors of thresholds τ: accept where `d <= τ`.

    `TAR(τ)` is the fraction of accepted genuine pairs (one person), `FAR(τ)` the fraction of
    accepted impostor pairs (different persons), `FRR = 1 − TAR`.

    Attributes:
        genuine: (n,) distances of pairs of one person, sorted.
        impostor: (m,) distances of pairs of different persons, sorted.

    Example:
        >>> import numpy as np
        >>> VerificationResult(np.array([0.1, 0.4]), np.array([0.3, 0.8])).eer
        0.5
    """

    genuine: np.ndarray
    impostor: np.ndarray

    def roc(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return `(τ, FAR(τ), TAR(τ))`, each (t,), at -inf and at every distance of a pair."""
        steps = np.unique(np.concatenate([[-np.inf], self.genuine, self.impostor]))
        far, tar = (
            np.searchsorted(part, steps, side="right") / len(part)
            for part in (self.impostor, self.genuine)
        )
        return steps, far, tar

    @property
    def auc(self) -> float:
        """`P(genuine < impostor) + P(genuine = impostor) / 2` over all pairs of pairs."""
        below, upto = (np.searchsorted(self.genuine, self.impostor, s) for s in ("left", "right"))
        return float((below.mean() + upto.mean()) / 2 / len(self.genuine))

    @property
    def eer(self) -> float:
        """Equal error rate, `FAR = FRR`, interpolated linearly between two thresholds."""
        _, far, tar = self.roc()
        gap = far + tar - 1  # FAR − FRR rises from −1 to 1
        i = int(np.argmax(gap >= 0))
        fraction = -gap[i - 1] / (gap[i] - gap[i - 1])
        return float(far[i - 1] + fraction * (far[i] - far[i - 1]))

    def threshold_at_far(self, far: float) -> Threshold:
        """Return the threshold at the largest distance of a pair with `FAR(τ) <= far`.

        The distance is -inf if no distance has such a FAR.

        Raises:
            InputError: `far` is outside [0, 1], or `0 < far < 1 / m`.
        """
        return threshold_at_far(self.impostor, self.genuine, far, "pair")

    def tar_at_far(self, far: float) -> float:
        """Return `max TAR(τ)` over all τ with `FAR(τ) <= far`.

        Raises:
            InputError: as `threshold_at_far`.
        """
        return float(self.threshold_at_far(far).accepts(self.genuine).mean())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; None replaces rates that need more impostor pairs."""
        return {
            "genuine_pairs": len(self.genuine),
            "impostor_pairs": len(self.impostor),
            "auc": self.auc,
            "eer": self.eer,
            "tar_at_far": rates(self.tar_at_far, SHOWN_FARS, len(self.impostor)),
        }

    def __str__(self) -> str:
        n, m = len(self.genuine), len(self.impostor)
        few = f"not resolvable with {m:,} impostor pairs"
        tars = rates(self.tar_at_far, SHOWN_FARS, m)
        rows = {
            "pairs": f"{n:,} of one person, {m:,} of two",
            "AUC": f"{100 * self.auc:.2f} %",
            "EER": f"{100 * self.eer:.2f} %",
            **{f"TAR at FAR {far}": percent(tar, few) for far, tar in tars.items()},
        }
        return columns(rows)


def verify(distances: Any, same: Any) -> VerificationResult:
    """Return the errors of thresholds on these distances.

    Example:
        >>> result = verify([0.1, 0.4, 0.3, 0.8], [True, True, False, False])
        >>> result.auc, result.tar_at_far(0.5)
        (0.75, 1.0)

    Args:
        distances: real numbers of any shape, smaller means more similar; see `pairs`.
        same: booleans of that shape, True for pairs of one person.

    Raises:
        InputError: other shapes, NaN, no pair of one person, or no pair of different persons.
    """
    distances, same = np.asarray(distances), np.asarray(same)
    numbers = distances.dtype.kind in "iuf" and np.isin(same, (0, 1)).all()
    if distances.shape != same.shape or not numbers or np.isnan(distances).any():
        received = Shown(f"{distances.dtype} {distances.shape} and {same.dtype} {same.shape}")
        raise InputError(
            "`distances` must be numbers without NaN, and `same` booleans of the same shape, got "
            f"{received}."
        )
    genuine, impostor = np.sort(distances[same == 1]), np.sort(distances[same == 0])
    if not len(genuine) or not len(impostor):
        rule = "at least one pair of one person and one of different persons"
        raise InputError(f"`same` must have {rule}, got {len(genuine)} and {len(impostor)}.")
    return VerificationResult(genuine, impostor)


def pairs(
    distances: Distances, query: Labeled, gallery: Labeled, protocol: str = "market1501"
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances (p,) and `same` (p,) of all pairs of query and gallery, for `verify`.

    Pairs of one person in one camera, and unlabeled gallery images, are left out.

    Args:
        distances: (q, g) or features, as in `rank`.
        query: labels of the q query images.
        gallery: labels of the g gallery images.
        protocol: "market1501", or "no-camera", which keeps pairs of one camera.

    Raises:
        InputError: as `rank`, or another protocol.

    Example:
        >>> import numpy as np
        >>> from keras_reid.evaluation import Labels
        >>> query, gallery = Labels([7], [0]), Labels([7, 7, 8], [0, 1, 1])
        >>> distances, same = pairs(np.array([[0.1, 0.4, 0.9]]), query, gallery)
        >>> distances.tolist(), same.tolist()
        ([0.4, 0.9], [True, False])
    """
    blocks = trials(distances, query, gallery, protocol)
    d, same = zip(*((rows[~junk], same[~junk]) for rows, same, junk in blocks), strict=True)
    return np.concatenate(d), np.concatenate(same)


def trials(
    distances: Distances, query: Labeled, gallery: Labeled, protocol: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield three arrays (b, g) for each block of queries: distances, and two masks.

    The first mask is true for pairs of one person, the second for junk: pairs of one person in one
    camera, and pairs with an unlabeled image.

    Args:
        distances: (q, g) or features, as in `rank`.
        query: labels of the q query images.
        gallery: labels of the g gallery images.
        protocol: name, as in `pairs`.

    Raises:
        InputError: as `rank`.
    """
    checks.one_of(("market1501", "no-camera"), protocol=protocol)
    source = as_rows(distances)
    labels = Protocol(protocol).codes(query, gallery, source.shape)
    for start, rows in source.blocks():
        yield rows, *labels.masks(start, start + len(rows))


def threshold_at_far(impostor: np.ndarray, other: np.ndarray, far: float, trial: str) -> Threshold:
    """Return the largest distance, as a threshold, that accepts at most `far` of the impostors.

    The threshold is -inf if each distance accepts more.

    Args:
        impostor: (n,) sorted distances of trials to reject.
        other: (m,) sorted distances of trials to accept.
        far: in [0, 1]; 0, or at least 1 / n.
        trial: as in `Threshold`.

    Raises:
        InputError: a rate between 0 and 1 / n, or outside [0, 1].
    """
    count = len(impostor)
    checks.within("[0, 1]", far=far)
    if not resolvable(far, count):
        limit = f"0, or at least {1 / count:.3g} with {count:,} impostor trials"
        fix = f"Use at least {np.ceil(1 / far):,.0f} trials."
        raise invalid("far", limit, Shown(f"{far:g}"), fix)
    admitted = min(count, int(far * count) + 1)
    while admitted / count > far:  # the largest number with a fraction of at most `far` in float64
        admitted -= 1
    parts = [impostor, other]
    if admitted < count:
        parts = [part[: np.searchsorted(part, impostor[admitted])] for part in parts]
    value = max((float(part[-1]) for part in parts if len(part)), default=-np.inf)
    accepted = float(np.searchsorted(impostor, value, side="right") / count)
    return Threshold(value, float(far), accepted, count, trial)


def resolvable(far: float, trials: int) -> bool:
    """Return True if a rate is 0, or at least one of the trials."""
    return far == 0 or far >= 1 / trials


def rates(
    rate: Callable[[float], float], fars: Sequence[float], trials: int
) -> dict[str, float | None]:
    """Return the rate at each false acceptance rate; None at rates below one of the trials."""
    return {f"{far:g}": rate(far) if resolvable(far, trials) else None for far in fars}


def percent(rate: float | None, unresolvable: str) -> str:
    """Return a rate of `rates` in percent, or the text for None."""
    return unresolvable if rate is None else f"{100 * rate:.2f} %"
