"""Distance thresholds for a false acceptance rate."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import Shown, invalid


@dataclass(frozen=True)
class Threshold:
    """Distance threshold, which accepts pairs with `distance <= value`.

    Attributes:
        value: the distance; -inf accepts nothing.
        far: the requested false acceptance rate, an upper bound of the rate on those trials.
        measured_far: the false acceptance rate of the value on those trials.
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

    def __float__(self) -> float:
        return float(self.value)

    def accepts(self, distances: Any) -> np.ndarray:
        """Return booleans of the shape of the distances."""
        return np.asarray(distances) <= self.value

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values; `Threshold(**values)` restores them."""
        return asdict(self)


def threshold_at_far(impostor: np.ndarray, other: np.ndarray, far: float, trial: str) -> Threshold:
    """Return the largest of the distances that accepts at most the fraction `far` of impostors.

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
