"""Each formula a second time, naively, in float64 loops. Imports nothing of the package."""

import math
from collections.abc import Callable

import numpy as np

# --- distances: (n, d) and (m, d) -> (n, m)


def euclidean_of_two(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True)))


def squared_of_two(a: np.ndarray, b: np.ndarray) -> float:
    return sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist(), strict=True))


def cosine_of_two(a: np.ndarray, b: np.ndarray) -> float:
    """Half the squared chord: 1 − cos written so that float64 does not cancel either."""
    return squared_of_two(unit(a), unit(b)) / 2


OF_TWO = {
    "euclidean": euclidean_of_two,
    "squared_euclidean": squared_of_two,
    "cosine": cosine_of_two,
}


def unit(a: np.ndarray) -> np.ndarray:
    length = math.sqrt(sum(value * value for value in a.tolist()))
    return a / length if length > 0 else a


def matrix(x: np.ndarray, y: np.ndarray, distance: str = "euclidean") -> np.ndarray:
    of_two = OF_TWO[distance]
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    return np.array([[of_two(a, b) for b in y] for a in x])


# --- miners: distances (n, n) and labels (n,) -> (d⁺, d⁻) of every comparison that exists


def comparisons_batch_hard(d: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    found = []
    for a in range(len(labels)):
        positives, negatives = _partners(d, labels, a)
        if positives and negatives:
            found.append((max(positives), min(negatives)))
    return found


def comparisons_soft_hard(d: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    found = []
    for a in range(len(labels)):
        positives, negatives = _partners(d, labels, a)
        if positives and negatives:
            found.append((_softmax_mean(positives, 1), _softmax_mean(negatives, -1)))
    return found


def comparisons_margin_sample(d: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    """The one comparison of the batch, found once by every anchor."""
    partners = [_partners(d, labels, a) for a in range(len(labels))]
    positives = [p for row, _ in partners for p in row]
    negatives = [n for _, row in partners for n in row]
    return [(max(positives), min(negatives))] * len(labels) if positives and negatives else []


def comparisons_all_triplets(d: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    found = []
    for a in range(len(labels)):
        positives, negatives = _partners(d, labels, a)
        found += [(p, n) for p in positives for n in negatives]
    return found


def _partners(d: np.ndarray, labels: np.ndarray, a: int) -> tuple[list[float], list[float]]:
    others = [j for j in range(len(labels)) if j != a]
    positives = [float(d[a, j]) for j in others if labels[j] == labels[a]]
    negatives = [float(d[a, j]) for j in others if labels[j] != labels[a]]
    return positives, negatives


def _softmax_mean(values: list[float], sign: int) -> float:
    shift = max(sign * v for v in values)
    weights = [math.exp(sign * v - shift) for v in values]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


# --- losses: labels (b,) and predictions (b, d) -> the scalar that training minimises


def triplet_hard(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float | None = 0.3,
    distance: str = "euclidean",
    normalize: bool = False,
) -> float:
    x = np.asarray(x, "float64")
    if normalize:
        x = np.array([unit(row) for row in x])
    found = comparisons_batch_hard(matrix(x, x, distance), labels)
    terms = [_slack(positive - negative, margin) for positive, negative in found]
    return sum(terms) / len(terms) if terms else 0.0


def _slack(excess: float, margin: float | None) -> float:
    if margin is None:
        return max(excess, 0.0) + math.log1p(math.exp(-abs(excess)))
    return max(excess + margin, 0.0)


def smoothed_cross_entropy(labels: np.ndarray, logits: np.ndarray, smoothing: float = 0.1) -> float:
    total = 0.0
    for label, row in zip(labels, np.asarray(logits, "float64").tolist(), strict=True):
        shift = max(row)
        log_sum = shift + math.log(sum(math.exp(z - shift) for z in row))
        for c, z in enumerate(row):
            target = (1 - smoothing) * (c == label) + smoothing / len(row)
            total -= target * (z - log_sum)
    return total / len(labels)


# --- gradients by central differences


def gradient(function: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """`∂f/∂x`, one entry after the other."""
    slopes = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        direction = np.zeros(x.shape)
        direction[index] = 1.0
        slopes[index] = slope(function, x, direction)
    return slopes


def slope(function: Callable[[np.ndarray], float], x: np.ndarray, direction: np.ndarray) -> float:
    """`⟨∂f/∂x, direction⟩` from two values. A random direction sees an error in any entry."""
    x = np.asarray(x, "float64")
    step = 1e-6 * np.abs(x).max()
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def normalised(x: np.ndarray, epsilon: float) -> np.ndarray:
    """Batch normalisation in inference with mean 0, variance 1, scale 1 and no shift."""
    return x.astype(np.float64) / np.sqrt(1 + epsilon)


def generalized_mean(x: np.ndarray, p: float) -> np.ndarray:
    """`(mean_hw max(x, 1e-6)^p)^(1/p)` of maps (b, h, w, d)."""
    b, h, w, d = x.shape
    out = np.zeros((b, d))
    for i in range(b):
        for k in range(d):
            total = sum(max(float(x[i, r, c, k]), 1e-6) ** p for r in range(h) for c in range(w))
            out[i, k] = (total / (h * w)) ** (1 / p)
    return out
