"""Probability that two images, or a query and its nearest enrolled person, show one person."""

from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import compare
from keras_reid.evaluation.labels import column
from keras_reid.io import parsing
from keras_reid.nearest.arrays import checked_features

MOST_PERSONS, MOST_IMAGES = 500, 8  # maximum numbers of persons in a draw, and images of each
MARGIN = 0.2  # distance to the second person; a larger one adds little

LEAST_PERSONS, LEAST_IMAGES = 5, 2  # minimum sizes of a gallery that is calibrated on itself
WEIGHT = 0.1  # weight of a left-out image: images of one gallery are similar
HALF = 30  # number of persons for half of the weight of the gallery's impostor distance
ALONE = [0, 1, 4]  # the columns of a search in a gallery of one person
DEVIATIONS = np.array([0.3, 0.5])  # deviations of the prior of log(scale) and offset


@dataclass(frozen=True)
class MatchCalibration:
    """Probability of a match: `sigmoid(scale · z + offset)`, with z by logistic regression.

    Several enrolled persons: `z = search · (1, d, tanh((d₂ − d) / 0.2), log N, log n)`. One person,
    as in 1:1 verification: `z = pair · (1, d, log n)`. Here d is the distance to the nearest
    enrolled person, d₂ that to the second person, N the number of persons and n the mean number of
    images of each. Half of the queries are assumed to be of enrolled persons.

    Attributes:
        search: five coefficients.
        pair: three coefficients.
        impostor: mean distance between images of different persons.
        source: description of the images that the coefficients were fitted on.
        scale, offset: adaptation to a gallery; 1 and 0 before it.
        persons, images: numbers of the gallery that `scale` and `offset` were estimated on.

    Raises:
        InputError: numbers that are not finite, or another number of coefficients.

    Example:
        >>> calibration = MatchCalibration((5, -10, 12, -0.4, -0.3), (14, -19, -1), 0.85, "example")
        >>> far, near = 0.55, 0.41  # the second person
        >>> calibration.probability([0.4, 0.4], [far, near], persons=30, images=2).round(2).tolist()
        [1.0, 0.51]

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999, for scale and offset.
    """

    search: tuple[float, ...]
    pair: tuple[float, ...]
    impostor: float
    source: str
    scale: float = 1.0
    offset: float = 0.0
    persons: int = 0
    images: int = 0

    def __post_init__(self) -> None:
        for name in ("search", "pair"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
        values = [*self.search, *self.pair, self.impostor, self.scale, self.offset]
        if (len(self.search), len(self.pair)) != (5, 3) or not np.isfinite(values).all():
            raise InputError(
                "`search` must have 5 coefficients, `pair` 3, and all values must be finite, "
                f"got {self}. Calibrate again."
            )

    @classmethod
    def of(cls, values: Any, place: object) -> "MatchCalibration":
        """Return the calibration with these values.

        Args:
            values: mapping of the attributes.
            place: where they were stored, for errors.

        Raises:
            InputError: missing, unknown or invalid values.
        """
        rule = "have the values of MatchCalibration"
        with parsing(place, rule, "Calibrate again.", TypeError):
            return cls(**values)

    def probability(self, distance: Any, second: Any, persons: int, images: float) -> np.ndarray:
        """Return the probability that the nearest enrolled person is the person of the query.

        Args:
            distance: (n,) distances to the nearest person.
            second: (n,) distances to the second person; inf in a gallery of one person.
            persons: number of enrolled persons.
            images: mean number of images of an enrolled person.
        """
        d, d2 = np.asarray(distance, np.float64), np.asarray(second, np.float64)
        z = self.scale * self._logit(d, d2, persons, images) + self.offset
        return 0.5 * (1 + np.tanh(z / 2))

    def pair_probability(self, distance: Any) -> np.ndarray:
        """Return the probabilities (n,) that pairs of images at these distances show one person."""
        return self.probability(distance, np.inf, 1, 1)

    def _logit(self, d: np.ndarray, d2: np.ndarray, persons: Any, images: Any) -> np.ndarray:
        x = columns(d, d2, persons, images)
        return np.where(np.isinf(d2), x[..., ALONE] @ self.pair, x @ self.search)

    def adapt(
        self, embeddings: Any, identities: Any, seed: int | None = None
    ) -> "MatchCalibration":
        """Estimate scale and offset on a gallery, leaving one image out at a time.

        Each image is a query twice: of an enrolled person, among all other images, and of a
        person who is not enrolled, among the images of other persons. Scale and offset maximize
        the likelihood of these searches times a prior, so that few images move them little. The
        prior's mean of the offset depends on how much closer together the persons of the gallery
        are than those of the model's calibration.

        Args:
            embeddings: (n, d) images of the gallery.
            identities: (n,) their persons.
            seed: seed of a draw of at most 500 persons and 8 images of each; None: all images.

        Raises:
            InputError: fewer than 5 persons with at least 2 images.
        """
        from scipy.optimize import minimize  # takes a second, which start-up does not need

        distance, owner, counts = distances(embeddings, identities, seed)
        require_persons(LEAST_PERSONS, counts)
        searches = left_out(distance, owner, counts)
        right = np.append(searches.right, np.zeros(len(owner), bool))
        z = np.concatenate([self._logit(*searches.mated), self._logit(*searches.non_mated)])
        shift = self.impostor - mean_impostor(distance, owner)
        mean = np.array([0, self.search[1] * shift * len(counts) / (len(counts) + HALF)])

        def loss(values: np.ndarray) -> float:
            scaled = np.exp(values[0]) * z + values[1]
            fit = WEIGHT * np.logaddexp(0, np.where(right, -scaled, scaled)).sum()
            return fit + ((values - mean) ** 2 / (2 * DEVIATIONS**2)).sum()

        scale, offset = minimize(loss, mean).x
        numbers: dict[str, Any] = {"persons": len(counts), "images": len(owner)}
        return replace(self, scale=float(np.exp(scale)), offset=float(offset), **numbers)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values; `MatchCalibration(**values)` restores them."""
        return asdict(self)


class Searches(NamedTuple):
    """Searches in a gallery with one image left out, as arguments of `probability`.

    Attributes:
        mated: searches among all other images, for images of persons with several.
        non_mated: searches among images of other persons, for all images.
        right: True where the nearest person of a mated search is the right one.
    """

    mated: tuple[np.ndarray, np.ndarray, int, float]
    non_mated: tuple[np.ndarray, np.ndarray, int, float]
    right: np.ndarray


def left_out(distance: np.ndarray, owner: np.ndarray, counts: np.ndarray) -> Searches:
    """Return the searches with each image of a gallery as the query and the others as the gallery.

    Args:
        distance: (m, m), sorted by person.
        owner: (m,) index of the person of each image, from 0, as `distances` returns it.
        counts: (p,) number of images of each person.
    """
    others = distance.copy()
    np.fill_diagonal(others, np.inf)
    nearest = np.minimum.reduceat(others, np.cumsum(counts) - counts, axis=1)
    rows = np.arange(len(owner))
    own = nearest[rows, owner]
    nearest[rows, owner] = np.inf
    two = np.sort(np.partition(nearest, 1, axis=1)[:, :2], axis=1)
    mated = np.isfinite(own)
    first, second = np.sort(np.column_stack([own, two]), axis=1)[mated, :2].T
    persons, images = len(counts), len(owner) / len(counts)
    return Searches(
        (first, second, persons, images),
        (two[:, 0], two[:, 1], persons - 1, images),
        own[mated] <= two[mated, 0],
    )


def distances(
    embeddings: Any, identities: Any, seed: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distances between images, sorted by person.

    Args:
        embeddings: (n, d).
        identities: (n,).
        seed: seed of a draw of at most 500 persons and 8 images of each; None: all images.

    Returns:
        Distances (m, m), the index of the person of each image (m,), from 0, and the number of
        images of each person (p,).
    """
    x = checked_features(embeddings, 2, "embedding")
    owner = np.unique(column(identities, len(x), "identities"), return_inverse=True)[1]
    rows = np.arange(len(x)) if seed is None else np.random.default_rng(seed).permutation(len(x))
    rows = rows[np.argsort(owner[rows], kind="stable")]
    if seed is not None:
        counts = np.bincount(owner)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.random.default_rng(seed).permutation(len(counts))[:MOST_PERSONS]
        rows = rows[(place < MOST_IMAGES) & np.isin(owner[rows], kept)]
    owner, counts = np.unique(owner[rows], return_inverse=True, return_counts=True)[1:]
    return compare(x[rows], x[rows]).rows(0, len(rows)), owner, counts


def require_persons(least: int, counts: np.ndarray) -> None:
    """Raise if fewer than `least` persons have several images.

    Args:
        least: number of persons.
        counts: (p,), number of images of each person.
    """
    several = int((counts >= LEAST_IMAGES).sum())
    if several < least:
        rule = f"A calibration needs {least} persons with at least {LEAST_IMAGES} images"
        raise InputError(f"{rule}, got {several}. Add images, or calibrate on a data set.")


def mean_impostor(distance: np.ndarray, owner: np.ndarray) -> float:
    """Return the mean distance between images of different persons."""
    return float(distance[owner[:, None] != owner].mean(dtype=np.float64))


def columns(d: np.ndarray, d2: np.ndarray, persons: int, images: float) -> np.ndarray:
    """Return `(1, d, tanh((d₂ − d) / 0.2), log N, log n)`: (q, 5); d₂ = d if it is infinite."""
    margin = np.tanh((np.where(np.isinf(d2), d, d2) - d) / MARGIN)
    return np.stack(np.broadcast_arrays(1.0, d, margin, np.log(persons), np.log(images)), axis=-1)
