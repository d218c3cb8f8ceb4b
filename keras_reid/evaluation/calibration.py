"""Probability that two images, or a query and its nearest enrolled person, are of one person."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import compare
from keras_reid.nearest.arrays import checked_features

PERSONS = (5, 10, 30, 60, 100, 300)  # gallery sizes that `fit_calibration` draws
IMAGES = (1, 2, 4)  # images per person in these galleries
DRAWS = 4  # galleries of each size
ALONE = 12  # times as many galleries of one person
MOST_PERSONS, MOST_IMAGES = 500, 8  # that are looked at, and images of each
FEWEST_PERSONS = 10  # persons to fit on
MARGIN = 0.2  # to the second person; a larger one adds little evidence
PENALTY = 1e-5  # on squared coefficients, against separable searches

LEAST_PERSONS, LEAST_IMAGES = 5, 2  # of a gallery that is calibrated on itself
WEIGHT = 0.1  # of a left-out image: images of one gallery resemble each other
HALF = 30  # number of persons at which the mean impostor distance counts half
DEVIATIONS = np.array([0.3, 0.5])  # of the prior on log(scale) and offset


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
        impostor: mean distance between images of two persons.
        source: the images that the coefficients were fitted on, in words.
        scale, offset: adaptation to a gallery; 1 and 0 without.
        persons, images: numbers of the gallery that `scale` and `offset` were estimated on.

    Raises:
        InputError: numbers that are not finite, or not so many.

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
                "`search` and `pair` must be 5 and 3 coefficients, and all must be finite, "
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
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(
                f"the calibration in `{place}` must have the values of MatchCalibration, but "
                f"'{error}'. Calibrate again."
            ) from error

    @property
    def adapted(self) -> bool:
        """True if scale and offset were estimated on a gallery."""
        return self.persons > 0

    def probability(self, distance: Any, second: Any, persons: int, images: float) -> np.ndarray:
        """Return the probability that the nearest enrolled person is the person of the query.

        Args:
            distance: (n,) distances to the nearest person.
            second: (n,) distances to the second person; inf in a gallery of one person.
            persons: number of enrolled persons.
            images: mean number of images of an enrolled person.
        """
        d, d2 = np.asarray(distance, np.float64), np.asarray(second, np.float64)
        return _sigmoid(self.scale * self._logit(d, d2, persons, images) + self.offset)

    def pair_probability(self, distance: Any) -> np.ndarray:
        """Return the probability (n,) that pairs of images at these distances are of one person."""
        return self.probability(distance, np.inf, 1, 1)

    def _logit(self, d: np.ndarray, d2: np.ndarray, persons: Any, images: Any) -> np.ndarray:
        alone = np.isinf(d2)
        several = _several(d, np.where(alone, d, d2), persons, images) @ self.search
        return np.where(alone, _alone(d, images) @ self.pair, several)

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
            seed: of a draw of at most 500 persons and 8 images of each; None: all images.

        Raises:
            InputError: fewer than 5 persons with at least 2 images.
        """
        from scipy.optimize import minimize  # takes a second, which start-up does not need

        distance, owner, counts = distances(embeddings, identities, seed)
        if (counts >= LEAST_IMAGES).sum() < LEAST_PERSONS:
            raise InputError(
                f"a gallery must have at least {LEAST_PERSONS} persons with {LEAST_IMAGES} images "
                f"to calibrate decisions on itself, got {(counts >= LEAST_IMAGES).sum()}. Enrol "
                "more images, or pass a data set."
            )
        searches = left_out(distance, owner, counts)
        right = np.append(searches.right, np.zeros(len(owner), bool))
        z = np.concatenate([self._logit(*searches.mated), self._logit(*searches.non_mated)])
        shift = self.impostor - _impostor(distance, owner)
        mean = np.array([0, self.search[1] * shift * len(counts) / (len(counts) + HALF)])

        def loss(values: np.ndarray) -> float:
            scaled = np.exp(values[0]) * z + values[1]
            fit = WEIGHT * np.logaddexp(0, np.where(right, -scaled, scaled)).sum()
            return fit + ((values - mean) ** 2 / (2 * DEVIATIONS**2)).sum()

        scale, offset = minimize(loss, mean).x
        return replace(
            self,
            scale=float(np.exp(scale)),
            offset=float(offset),
            persons=len(counts),
            images=len(owner),
        )

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
    """Search for each image of a gallery among the other images.

    Args:
        distance, owner, counts: of `distances`.
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


def fit_calibration(
    sets: Sequence[tuple[Any, Any]], source: str, seed: int = 0
) -> MatchCalibration:
    """Fit the coefficients of `MatchCalibration` on searches in galleries drawn from images.

    Galleries have 1 to 300 persons, at most half of all, and 1, 2 and 4 images of each. All other
    images are queries; half of the weight belongs to queries of enrolled persons. Of large sets,
    500 persons and 8 images of each are used.

    Args:
        sets: embeddings (n, d) and identities (n,) of persons that the model was not trained on,
            of each network of cameras. A gallery is drawn from one set.
        source: the images in words.
        seed: of the draws.

    Raises:
        InputError: a set has fewer than 10 persons with a second image.
    """
    rng = np.random.default_rng(seed)
    several, alone, impostors = [], [], []
    for embeddings, identities in sets:
        distance, owner, counts = distances(embeddings, identities, seed)
        if (counts >= 2).sum() < FEWEST_PERSONS:
            raise InputError(
                f"a calibration must have at least {FEWEST_PERSONS} persons with 2 or more "
                f"images, got {(counts >= 2).sum()}. Add images of others."
            )
        impostors.append(_impostor(distance, owner))
        for images in IMAGES:
            most = min(len(counts) // 2, (counts > images).sum())
            sizes = [size for size in PERSONS if size <= most]
            for size in DRAWS * sizes:
                several.append(draw_searches(distance, owner, size, images, rng))
            for _ in range(DRAWS * ALONE if most else 0):
                alone.append(draw_searches(distance, owner, 1, images, rng))
    columns = [_several(g.distance, g.second, g.persons, g.images) for g in several]
    search = _fitted(columns, several)
    pair = _fitted([_alone(g.distance, g.images) for g in alone], alone)
    return MatchCalibration(tuple(search), tuple(pair), float(np.mean(impostors)), source)


def fit_pair_calibration(distances: Any, same: Any, source: str) -> MatchCalibration:
    """Fit the coefficients of `MatchCalibration` on pairs of images, for 1:1 verification.

    Half of the weight belongs to the pairs of one person. A search has the same coefficients.

    Args:
        distances: (n,) distances of the pairs.
        same: (n,) True where both images show one person that the model was not trained on.
        source: the images in words.
    """
    d, same = np.asarray(distances, np.float64), np.asarray(same, bool)
    pairs = GallerySearches(d, np.full(len(d), np.inf), same, same, np.arange(len(d)), 1, 1)
    offset, slope, _ = pair = _fitted([_alone(d, 1)], [pairs])
    return MatchCalibration((offset, slope, 0, 0, 0), tuple(pair), float(d[~same].mean()), source)


@dataclass(frozen=True, eq=False)
class GallerySearches:
    """Searches of one drawn gallery.

    Attributes:
        distance, second: (q,) distances to the nearest and to the second person (inf: none).
        right: (q,) True where the nearest person is the person of the query.
        enrolled: (q,) True where the person of the query is enrolled.
        query: (q,) rows of the queries.
        persons, images: numbers of enrolled persons and of images of each.
    """

    distance: np.ndarray
    second: np.ndarray
    right: np.ndarray
    enrolled: np.ndarray
    query: np.ndarray
    persons: int
    images: int

    @property
    def weight(self) -> np.ndarray:
        """Weights (q,) with sum 1, half of it for queries of enrolled persons."""
        known = self.enrolled.sum()
        return np.where(self.enrolled, 0.5 / max(known, 1), 0.5 / max(len(self.query) - known, 1))


def draw_searches(
    distance: np.ndarray, owner: np.ndarray, persons: int, images: int, rng: np.random.Generator
) -> GallerySearches:
    """Enrol images of some persons, and search for all others.

    Args:
        distance, owner: of `distances`.
        persons: number of enrolled persons, of those with more than `images` images.
        images: number of enrolled images of each.
        rng: of the draw.
    """
    fit = np.flatnonzero(np.bincount(owner) > images)
    chosen = np.sort(rng.choice(fit, persons, replace=False))
    rows = np.concatenate(
        [rng.choice(np.flatnonzero(owner == one), images, replace=False) for one in chosen]
    )
    query = np.setdiff1d(np.arange(len(owner)), rows)
    nearest = distance[np.ix_(query, rows)].reshape(len(query), persons, images).min(axis=2)
    order = np.argsort(nearest, axis=1, kind="stable")[:, :2]
    best = np.take_along_axis(nearest, order, axis=1)
    second = best[:, 1] if persons > 1 else np.full(len(query), np.inf)
    right = chosen[order[:, 0]] == owner[query]
    enrolled = np.isin(owner[query], chosen)
    return GallerySearches(best[:, 0], second, right, enrolled, query, persons, images)


def distances(
    embeddings: Any, identities: Any, seed: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances between images that are sorted by person.

    Args:
        embeddings: (n, d).
        identities: (n,).
        seed: of a draw of at most 500 persons and 8 images of each; None: all images.

    Returns:
        Distances (m, m), numbers of the persons (m,) and numbers of their images (p,).
    """
    x = checked_features(embeddings, 2, "embedding")
    names = np.asarray(identities)
    if names.shape != (len(x),):
        raise InputError(
            f"`identities` must have one value for each of {len(x)} embeddings, got shape "
            f"{names.shape}."
        )
    owner = np.unique(names, return_inverse=True)[1]
    rows = np.arange(len(x))
    if seed is not None:
        rows = np.random.default_rng(seed).permutation(rows)
    rows = rows[np.argsort(owner[rows], kind="stable")]
    if seed is not None:
        counts = np.bincount(owner)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        kept = np.random.default_rng(seed).permutation(len(counts))[:MOST_PERSONS]
        rows = rows[(place < MOST_IMAGES) & np.isin(owner[rows], kept)]
    owner, counts = np.unique(owner[rows], return_inverse=True, return_counts=True)[1:]
    return compare(x[rows], x[rows]).rows(0, len(rows)), owner, counts


def _impostor(distance: np.ndarray, owner: np.ndarray) -> float:
    return float(distance[owner[:, None] != owner].mean(dtype=np.float64))


def _several(d: np.ndarray, d2: np.ndarray, persons: int, images: float) -> np.ndarray:
    ones = np.ones_like(d)
    margin = np.tanh((d2 - d) / MARGIN)
    return np.stack([ones, d, margin, np.log(persons) * ones, np.log(images) * ones], axis=-1)


def _alone(d: np.ndarray, images: float) -> np.ndarray:
    return np.stack([np.ones_like(d), d, np.log(images) * np.ones_like(d)], axis=-1)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(z / 2))


def _fitted(columns: list[np.ndarray], searches: list[GallerySearches]) -> np.ndarray:
    """Return the coefficients of a weighted logistic regression."""
    from sklearn.linear_model import LogisticRegression

    right = np.concatenate([search.right for search in searches])
    weight = np.concatenate([search.weight for search in searches]) / len(searches)
    model = LogisticRegression(C=0.5 / PENALTY, fit_intercept=False, tol=1e-8, max_iter=10_000)
    return model.fit(np.concatenate(columns), right, weight).coef_[0]
