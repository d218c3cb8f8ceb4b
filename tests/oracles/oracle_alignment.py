"""Naive float64 versions of aligned stripe distances, independent of the package."""

import math
from itertools import combinations

import numpy as np
import oracle


def cells(f: np.ndarray, g: np.ndarray) -> np.ndarray:
    """`(e^x − 1)/(e^x + 1)` of the distances x between the stripes of two images `(s, t)`."""
    x = oracle.matrix(f, g)
    return (np.exp(x) - 1) / (np.exp(x) + 1)


def paths(s: int, t: int) -> list[list[tuple[int, int]]]:
    """Every way from (0, 0) to (s − 1, t − 1) by steps down or right."""
    steps = s + t - 2
    found = []
    for downs in combinations(range(steps), s - 1):
        i = j = 0
        path = [(i, j)]
        for step in range(steps):
            i, j = (i + 1, j) if step in downs else (i, j + 1)
            path.append((i, j))
        found.append(path)
    return found


def shortest_of_all(d: np.ndarray) -> float:
    """Shortest path by enumeration."""
    return min(sum(d[cell] for cell in path) for path in paths(*d.shape))


def shortest(d: np.ndarray) -> float:
    """Shortest path by the recurrence, for large grids."""
    total = np.full((d.shape[0] + 1, d.shape[1] + 1), math.inf)
    for i, j in np.ndindex(d.shape):
        before = min(total[i, j + 1], total[i + 1, j]) if i or j else 0.0
        total[i + 1, j + 1] = d[i, j] + before
    return float(total[-1, -1])


def aligned(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.array([[shortest(cells(f, g)) for g in y] for f in x])


def aligned_triplet(
    labels: np.ndarray,
    rows: np.ndarray,
    margin: float | str = 0.3,
    by: str = "features",
    normalize: bool = False,
    **space: str,
) -> float:
    """Aligned triplet loss of rows; `features_and_stripes` returns their two outputs."""
    features, local = features_and_stripes(np.asarray(rows, "float64"))
    if normalize:
        features = np.array([oracle.unit(one) for one in features])
        local = np.array([[oracle.unit(stripe) for stripe in image] for image in local])
    if by == "features":
        chooses = oracle.matrix(features, features, **space)
    else:
        chooses = aligned(local, local)
    terms = []
    for a in range(len(labels)):
        positives = [i for i in range(len(labels)) if labels[i] == labels[a] and i != a]
        negatives = [i for i in range(len(labels)) if labels[i] != labels[a]]
        if positives and negatives:
            p = max(positives, key=lambda i, a=a: chooses[a, i])
            n = min(negatives, key=lambda i, a=a: chooses[a, i])
            to_p, to_n = (shortest(cells(local[a], local[i])) for i in (p, n))
            terms.append(oracle.hinge(to_p - to_n, margin))
    return oracle.mean(terms)


def features_and_stripes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows `(b, d)` as features and three different stripes `(b, 3, d)`."""
    turned = rows[:, ::-1]
    return rows, np.stack([rows, rows + turned, turned / 2], axis=1)
