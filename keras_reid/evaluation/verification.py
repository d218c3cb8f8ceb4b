"""1:1 verification: do two images show one person?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid.errors import InputError, counted
from keras_reid.evaluation.comparison import Compared
from keras_reid.evaluation.labels import Labeled
from keras_reid.evaluation.threshold import Threshold, rates, threshold_at_far
from keras_reid.evaluation.trials import trials

SHOWN_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True, eq=False)
class VerificationResult:
    """The distances of pairs, and what any threshold τ makes of them: accept where `d <= τ`.

    `TAR(τ)` is the fraction of the genuine pairs (one person) accepted, `FAR(τ)` that of the
    impostor pairs (two people), `FRR = 1 − TAR`.

    Attributes:
        genuine: (n,) distances of pairs of one person, sorted.
        impostor: (m,) distances of pairs of two people, sorted.
    """

    genuine: np.ndarray
    impostor: np.ndarray

    def roc(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`(τ, FAR(τ), TAR(τ))`, each (t,), at -inf and at every distance that occurs."""
        seen = np.unique(np.concatenate([self.genuine, self.impostor]))
        far, tar = (
            np.concatenate([[0.0], np.searchsorted(part, seen, side="right") / len(part)])
            for part in (self.impostor, self.genuine)
        )
        return np.concatenate([[-np.inf], seen]), far, tar

    @property
    def auc(self) -> float:
        """`P(genuine < impostor) + P(genuine = impostor) / 2` over all pairs of pairs."""
        below, upto = (np.searchsorted(self.genuine, self.impostor, s) for s in ("left", "right"))
        return float((below.mean() + upto.mean()) / 2 / len(self.genuine))

    @property
    def eer(self) -> float:
        """The rate at which `FAR = FRR`, between two thresholds by a straight line."""
        _, far, tar = self.roc()
        gap = far + tar - 1  # FAR − FRR rises from −1 to 1
        i = int(np.argmax(gap >= 0))
        fraction = -gap[i - 1] / (gap[i] - gap[i - 1])
        return float(far[i - 1] + fraction * (far[i] - far[i - 1]))

    def threshold_at_far(self, far: float) -> Threshold:
        """The largest distance seen with `FAR(τ) <= far`; -inf where none is.

        Raises:
            InputError: `far` is no fraction, or `0 < far < 1 / m`: these pairs cannot tell it from
                0.
        """
        return threshold_at_far(self.impostor, self.genuine, far, "pair")

    def tar_at_far(self, far: float) -> float:
        """`max TAR(τ)` over all τ with `FAR(τ) <= far`, which the nearest rate may exceed.

        Raises:
            InputError: as `threshold_at_far`.
        """
        return float(self.threshold_at_far(far).accepts(self.genuine).mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain values; rates that these pairs cannot resolve are None."""
        return {
            "genuine_pairs": len(self.genuine),
            "impostor_pairs": len(self.impostor),
            "auc": self.auc,
            "eer": self.eer,
            "tar_at_far": rates(self.tar_at_far, SHOWN_FARS, len(self.impostor)),
        }

    def __str__(self) -> str:
        n, m = len(self.genuine), len(self.impostor)
        lines = [f"verification: {counted(n, 'pair')} of one person, {m:,} of two"]
        lines.append(f"AUC {100 * self.auc:.2f} %, EER {100 * self.eer:.2f} %")
        for far, tar in rates(self.tar_at_far, SHOWN_FARS, m).items():
            unknown = f"not resolvable with {m:,} impostor pairs"
            lines.append(f"TAR at FAR {far}: {unknown if tar is None else f'{100 * tar:.2f} %'}")
        return "\n".join(lines)


def verify(distances: Any, same: Any) -> VerificationResult:
    """What a threshold on these distances decides.

    >>> result = verify([0.1, 0.4, 0.3, 0.8], [True, True, False, False])
    >>> result.auc, result.tar_at_far(0.5)
    (0.75, 1.0)

    Args:
        distances: real numbers of any shape, smaller is more alike; see `pairs`.
        same: booleans of that shape, whether the pair shows one person.

    Raises:
        InputError: other shapes, NaN, or no pair of either kind.
    """
    distances, same = np.asarray(distances), np.asarray(same)
    numbers = distances.dtype.kind in "iuf" and np.isin(same, (0, 1)).all()
    if distances.shape != same.shape or not numbers:
        raise InputError(
            "`distances` and `same` must be numbers and booleans of one shape, got "
            f"{distances.dtype} {distances.shape} and {same.dtype} {same.shape}. Compare the "
            "identities first."
        )
    same = same.astype(bool)
    if np.isnan(distances).any():
        raise InputError(
            f"distances are numbers: {int(np.isnan(distances).sum())} of {distances.size} are NaN; "
            "drop these pairs or mend the model"
        )
    if same.all() or not same.any():
        raise InputError(
            "a threshold is judged on pairs of one person and of two: received "
            f"{int(same.sum())} of one and {int((~same).sum())} of two; bring both"
        )
    return VerificationResult(np.sort(distances[same]), np.sort(distances[~same]))


def pairs(
    compared: Compared, query: Labeled, gallery: Labeled, protocol: str = "market1501"
) -> tuple[np.ndarray, np.ndarray]:
    """Every query image with every gallery image: distances (p,) and `same` (p,) for `verify`.

    Pairs of one person in one camera are left out, and unlabeled gallery images.

    Args:
        compared, query, gallery: as in `rank`.
        protocol: "market1501", or "no-camera", by which no pair is left out for its cameras.

    Raises:
        InputError: as `rank`.
    """
    found = trials(compared, query, gallery, protocol)
    parts = [(rows[~junk], same[~junk]) for rows, same, junk in found]
    return np.concatenate([d for d, _ in parts]), np.concatenate([s for _, s in parts])
