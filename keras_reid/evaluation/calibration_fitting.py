"""Fit of a match calibration on searches in drawn galleries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid.evaluation.calibration import (
    ALONE,
    MatchCalibration,
    columns,
    distances,
    mean_impostor,
    require_persons,
)

PERSONS = (5, 10, 30, 60, 100, 300)  # sizes of the drawn galleries
IMAGES = (1, 2, 4)  # images per person in these galleries
DRAWS = 4  # galleries of each size
SINGLE = 12  # times as many galleries of one person
FEWEST_PERSONS = 10  # persons to fit on
PENALTY = 1e-5  # factor of squared coefficients, for separable searches


def fit_calibration(
    sets: Sequence[tuple[Any, Any]], source: str, seed: int = 0
) -> MatchCalibration:
    """Fit the coefficients of `MatchCalibration` on searches in galleries drawn from images.

    Galleries have 1 to 300 persons, at most half of all, and 1, 2 and 4 images of each. All other
    images are queries; half of the weight belongs to queries of enrolled persons. Of large sets,
    500 persons and 8 images of each are used.

    Args:
        sets: embeddings (n, d) and identities (n,) of persons that the model was not trained on,
            for each network of cameras. A gallery is drawn from one set.
        source: description of the images.
        seed: seed of the draws.

    Raises:
        InputError: a set has fewer than 10 persons with a second image.

    Example:
        >>> import numpy as np
        >>> random, persons = np.random.default_rng(0), np.repeat(np.arange(12), 5)
        >>> x = random.normal(size=(12, 8))[persons] + 0.5 * random.normal(size=(60, 8))
        >>> calibration = fit_calibration([(x, persons)], "drawn points")
        >>> calibration.pair_probability([1.0, 2.5, 4.0]).round(2).tolist()
        [1.0, 0.7, 0.0]
    """
    rng = np.random.default_rng(seed)
    several, alone, impostors = [], [], []
    for embeddings, identities in sets:
        distance, owner, counts = distances(embeddings, identities, seed)
        require_persons(FEWEST_PERSONS, counts)
        impostors.append(mean_impostor(distance, owner))
        for images in IMAGES:
            most = min(len(counts) // 2, (counts > images).sum())
            sizes = [size for size in PERSONS if size <= most]
            several += [draw_searches(distance, owner, n, images, rng) for n in DRAWS * sizes]
            for _ in range(DRAWS * SINGLE if most else 0):
                alone.append(draw_searches(distance, owner, 1, images, rng))
    coefficients = _fitted(several, range(5)), _fitted(alone, ALONE)
    return MatchCalibration(*coefficients, float(np.mean(impostors)), source)


def fit_pair_calibration(distances: Any, same: Any, source: str) -> MatchCalibration:
    """Fit the coefficients of `MatchCalibration` on pairs of images, for 1:1 verification.

    Half of the weight belongs to the pairs of one person. Searches get the same offset and slope;
    the distance of the second person and the size of the gallery have no influence.

    Args:
        distances: (n,) distances of the pairs.
        same: (n,) True where both images show one person that the model was not trained on.
        source: description of the images.

    Example:
        >>> distances, same = [0.2, 0.3, 0.6, 0.5, 0.8, 0.9], [1, 1, 1, 0, 0, 0]
        >>> calibration = fit_pair_calibration(distances, same, "six pairs")
        >>> calibration.pair_probability([0.3, 0.55, 0.8]).round(2).tolist()
        [0.92, 0.5, 0.08]
    """
    d, same = np.asarray(distances, np.float64), np.asarray(same, bool)
    pairs = GallerySearches(d, np.full(len(d), np.inf), same, same, np.arange(len(d)), 1, 1)
    offset, slope, _ = pair = _fitted([pairs], ALONE)
    return MatchCalibration((offset, slope, 0, 0, 0), pair, float(d[~same].mean()), source)


@dataclass(frozen=True, eq=False)
class GallerySearches:
    """Searches of one drawn gallery.

    Attributes:
        distance, second: (q,) distances to the nearest and to the second person; the latter is
            inf if only one person is enrolled.
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
        distance: (m, m), sorted by person.
        owner: (m,) index of the person of each image, from 0, as `distances` returns it.
        persons: number of enrolled persons; each has more than `images` images.
        images: number of enrolled images of each person.
        rng: random generator of the draw.
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


def _fitted(searches: list[GallerySearches], kept: Sequence[int]) -> tuple[float, ...]:
    """Return the coefficients of a weighted logistic regression on some of the columns."""
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([columns(s.distance, s.second, s.persons, s.images) for s in searches])
    right = np.concatenate([search.right for search in searches])
    weight = np.concatenate([search.weight for search in searches]) / len(searches)
    model = LogisticRegression(C=0.5 / PENALTY, fit_intercept=False, tol=1e-8, max_iter=10_000)
    return tuple(model.fit(np.ascontiguousarray(x[:, kept]), right, weight).coef_[0])
