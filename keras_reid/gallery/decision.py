"""Match, possible match or no match, with a probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.evaluation import MatchCalibration
from keras_reid.evaluation.calibration import Searches
from keras_reid.gallery.rows import SearchResult
from keras_reid.nearest.arrays import checked_features

NOT_CALIBRATED = (
    "A gallery must have a calibration to decide who matches, got none. Assign that of the model "
    "to `gallery.calibration`, or calibrate the gallery on a data set."
)
MATCH, POSSIBLE_MATCH, NO_MATCH = "match", "possible match", "no match"


class Decision(NamedTuple):
    """Decision about a query and the nearest person, or about two images.

    Attributes:
        verdict: "match", "possible match" or "no match".
        probability: probability that both are one person.
    """

    verdict: str
    probability: float

    def __str__(self) -> str:
        return f"{self.verdict} ({percent(self.probability)})"


class Identification(NamedTuple):
    """Result of a search for a person.

    Attributes:
        decision: decision about the nearest person.
        hits: images of the gallery, nearest first.
    """

    decision: Decision
    hits: list[SearchResult]

    @property
    def identity(self) -> str | None:
        """Name of the match or possible match; None for "no match"."""
        return None if self.decision.verdict == NO_MATCH else self.hits[0].identity

    def __str__(self) -> str:
        """Return the result as text, such as "match: anna (97 %)"."""
        verdict, p = self.decision
        if not self.hits:
            return verdict
        name = self.hits[0].identity
        if verdict == NO_MATCH:
            return f"{verdict} (nearest: {name}, {percent(p)})"
        return f"{verdict}: {name} ({percent(p)})"


class Verification(NamedTuple):
    """Result of a 1:1 comparison: the distance of two images, and the decision."""

    distance: float
    decision: Decision


@dataclass(frozen=True)
class Limits:
    """Least probabilities of a match and of a possible match.

    Measured at the defaults, in galleries of 30 persons: of 100 queries of persons who are not
    enrolled, at most 1 gave a match. Of 100 queries with the right nearest person, at most 7 gave
    no match.

    Attributes:
        match: least probability of "match".
        possible: least probability of "possible match".

    Raises:
        InputError: unless `0 <= possible <= match <= 1`.
    """

    match: float = 0.96
    possible: float = 0.08

    def __post_init__(self) -> None:
        if not 0 <= self.possible <= self.match <= 1:
            raise InputError(
                "`match_probability` must be at least `possible_probability`, and both must be in "
                f"[0, 1], got {self.match!r} and {self.possible!r}."
            )

    def decide(self, probability: float) -> Decision:
        """Return the decision at this probability."""
        if probability >= self.match:
            return Decision(MATCH, probability)
        return Decision(POSSIBLE_MATCH if probability >= self.possible else NO_MATCH, probability)

    def share(self, verdict: str, probabilities: np.ndarray) -> float:
        """Return the share of the probabilities with this verdict, in percent."""
        verdicts = [self.decide(p).verdict for p in probabilities.tolist()]
        return 100 * verdicts.count(verdict) / max(1, len(verdicts))


LIMITS = Limits()


class SelfCalibration(NamedTuple):
    """Calibration before and after its adaptation to a gallery, and the searches used for it."""

    before: MatchCalibration
    after: MatchCalibration
    searches: Searches

    def table(self, limits: Limits = LIMITS) -> str:
        """Return the shares of the verdicts before and after, in percent."""
        mated, non_mated, right = self.searches
        lines = [
            f"searches with one image left out: {len(mated[0]):,} of enrolled persons, "
            f"{len(non_mated[0]):,} without the images of their person",
            f"nearest person right: {100 * right.mean():.1f} %",
            f"{'verdict':<46}{'model':>8}{'gallery':>9}",
        ]
        parts = {"nearest person right": (mated, right)}
        if not right.all():
            parts["nearest person wrong"] = (mated, ~right)
        parts["person not enrolled"] = (non_mated, np.ones(len(non_mated[0]), bool))
        for what, (search, chosen) in parts.items():
            both = [one.probability(*search)[chosen] for one in (self.before, self.after)]
            for verdict in (MATCH, POSSIBLE_MATCH, NO_MATCH):
                shares = [limits.share(verdict, p) for p in both]
                lines.append(f"{what + ': ' + verdict:<46}{shares[0]:>6.1f} %{shares[1]:>7.1f} %")
        return "\n".join(lines)


def decide(
    hits: Sequence[SearchResult],
    calibration: MatchCalibration,
    persons: int,
    images: float,
    limits: Limits = LIMITS,
) -> Decision:
    """Decide whether the person of the first hit is the person of the query.

    Args:
        hits: images of at least two persons, or of the only one, in order.
        calibration: calibration of the model.
        persons: number of enrolled persons.
        images: mean number of images of each.
        limits: least probabilities of the verdicts.
    """
    if not hits:
        return limits.decide(0.0)
    name = hits[0].identity
    first = min(hit.distance for hit in hits if hit.identity == name)
    second = min((hit.distance for hit in hits if hit.identity != name), default=np.inf)
    return limits.decide(float(calibration.probability(first, second, persons, images)))


def verify(
    first: Any, second: Any, calibration: MatchCalibration, limits: Limits = LIMITS
) -> list[Verification]:
    """Compare pairs of images (1:1), assuming that half of the pairs are of one person.

    Args:
        first: embeddings (n, d) of the first images.
        second: embeddings (n, d) of the second images, of the same model.
        calibration: calibration of that model, or of a gallery.
        limits: least probabilities of the verdicts.

    Raises:
        InputError: embeddings that are not finite, or not of one shape.

    >>> from keras_reid.evaluation import MatchCalibration
    >>> known = MatchCalibration((0, -9, 9, 0, 0), (14, -20, 0), 0.8, "an example")
    >>> (result,) = verify([[1.0, 0.0]], [[0.8, 0.6]], known)
    >>> print(f"{result.distance:.3f}: {result.decision}")
    0.632: possible match (79 %)
    """
    x, y = (checked_features(values, 2, "embedding") for values in (first, second))
    fix = "Embed both images of each pair with one model."
    checks.shapes(fix, first=("(n, d)", x.shape), second=("(n, d)", y.shape))
    distances = np.linalg.norm(x.astype(np.float64) - y, axis=1)
    probabilities = calibration.pair_probability(distances).tolist()
    pairs = zip(distances.tolist(), probabilities, strict=True)
    return [Verification(distance, limits.decide(p)) for distance, p in pairs]


def percent(probability: float) -> str:
    """Return a probability as text; 0 and 100 % are not claimed.

    >>> percent(0.9971), percent(0.0001), percent(0.5)
    ('> 99 %', '< 1 %', '50 %')
    """
    if probability > 0.99:
        return "> 99 %"
    return "< 1 %" if probability < 0.01 else f"{100 * probability:.0f} %"
