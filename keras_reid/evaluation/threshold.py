"""A distance up to which two images count as one person, and what it was chosen on."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError


@dataclass(frozen=True)
class Threshold:
    """Accept where `distance <= value`.

    Attributes:
        value: the distance; -inf accepts nothing.
        far: the false acceptance rate that was asked for, and is not exceeded on those trials.
        measured_far: the rate that the value has on those trials.
        impostors: how many trials it was chosen on: of two people, or non-mated searches.
        trial: "pair" (1:1, a rate of pairs) or "search" (1:N, a rate of non-mated searches, which
            grows with the gallery).
    """

    value: float
    far: float
    measured_far: float
    impostors: int
    trial: str

    def __float__(self) -> float:
        return float(self.value)

    def accepts(self, distances: Any) -> np.ndarray:
        """Booleans of the shape of the distances."""
        return np.asarray(distances) <= self.value

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which `Threshold(**values)` makes it again."""
        return asdict(self)


def threshold_at_far(impostor: np.ndarray, other: np.ndarray, far: float, trial: str) -> Threshold:
    """The largest distance seen at which no more than the fraction `far` of the impostors passes.

    Args:
        impostor: (n,) sorted distances of trials that ought to be refused.
        other: (m,) sorted distances of trials that ought to be accepted.
        far: in [0, 1]; 0, or at least 1 / n.
        trial: as in `Threshold`.

    Raises:
        InputError: n trials cannot tell such a rate from 0.
    """
    check_far(far, len(impostor))
    admitted = _admitted(far, len(impostor))
    if admitted == len(impostor):
        value = np.max(np.concatenate([impostor[-1:], other[-1:]]))
    else:
        below = [part[: np.searchsorted(part, impostor[admitted])] for part in (impostor, other)]
        value = np.max(np.concatenate([[-np.inf], *(part[-1:] for part in below)]))
    passed = float(np.searchsorted(impostor, value, side="right") / len(impostor))
    return Threshold(float(value), float(far), passed, len(impostor), trial)


def _admitted(far: float, trials: int) -> int:
    """The largest number of trials whose fraction is at most `far`, as computed in float64."""
    admitted = min(trials, int(np.floor(far * trials)) + 1)
    while admitted / trials > far:
        admitted -= 1
    return admitted


def resolvable(far: float, trials: int) -> bool:
    """Whether so many trials can tell the rate from 0: one of them is 1 / trials."""
    return far == 0 or far >= 1 / trials


def rates(
    rate: Callable[[float], float], fars: Sequence[float], trials: int
) -> dict[str, float | None]:
    """The rate at each false acceptance rate; None where the trials cannot tell it from 0."""
    return {f"{far:g}": rate(far) if resolvable(far, trials) else None for far in fars}


def check_far(far: float, trials: int) -> None:
    """A rate is a fraction that so many trials can tell from 0."""
    checks.within("[0, 1]", "a false acceptance rate is a fraction", far=far)
    if not resolvable(far, trials):
        raise InputError(
            f"a false acceptance rate of {far:g} is not resolvable with {trials:,} impostor "
            f"trials, the least being {1 / trials:.3g}: bring at least {np.ceil(1 / far):,.0f}, "
            "or ask for 0, at which none of these passes"
        )
