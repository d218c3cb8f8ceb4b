"""Naive float64 versions of distances, miners and losses, independent of the package."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

# --- distances: (n, d) and (m, d) -> (n, m)


def euclidean_of_two(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(squared_of_two(a, b))


def squared_of_two(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum((a - b) ** 2))


def cosine_of_two(a: np.ndarray, b: np.ndarray) -> float:
    """Half the squared chord: 1 − cos written so that float64 does not cancel either."""
    return squared_of_two(unit(a), unit(b)) / 2


OF_TWO = {
    "euclidean": euclidean_of_two,
    "squared_euclidean": squared_of_two,
    "cosine": cosine_of_two,
}


def unit(a: np.ndarray) -> np.ndarray:
    length = math.sqrt(float(np.sum(a * a)))
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


def comparisons_semi_hard(d: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    found = []
    for a in range(len(labels)):
        positives, negatives = _partners(d, labels, a)
        for p in positives if negatives else []:
            beyond = [n for n in negatives if n > p]
            found.append((p, min(beyond) if beyond else max(negatives)))
    return found


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


def _softmax_mean(values: list[float], sign: int, temperature: float = 1.0) -> float:
    shift = max(sign * v for v in values)
    weights = [math.exp((sign * v - shift) / temperature) for v in values]
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)


# --- losses: labels (b,) and predictions (b, d) -> the scalar that training minimizes


def distances(x: np.ndarray, distance: str = "euclidean", normalize: bool = False) -> np.ndarray:
    x = np.asarray(x, "float64")
    if distance == "precomputed":
        return x
    return matrix(*[np.array([unit(row) for row in x]) if normalize else x] * 2, distance)


MINERS = {
    "batch_all": comparisons_all_triplets,
    "batch_hard": comparisons_batch_hard,
    "batch_soft": comparisons_soft_hard,
    "semi_hard": comparisons_semi_hard,
    "margin_sample": comparisons_margin_sample,
}


def triplets(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float | str = 0.3,
    miner: str = "batch_all",
    nonzero: bool = False,
    **space: Any,
) -> float:
    found = MINERS[miner](distances(x, **space), labels)
    terms = [hinge(positive - negative, margin) for positive, negative in found]
    return mean([t for t in terms if t > 0] if nonzero else terms)


triplet_hard = partial(triplets, miner="batch_hard")
triplet_semi_hard = partial(triplets, miner="semi_hard")
margin_sample_mining = partial(triplets, miner="margin_sample")


def triplet_hard_of_every_anchor(
    labels: np.ndarray, x: np.ndarray, margin: float | str = 0.3, **space: Any
) -> float:
    space.pop("zero_for_missing")
    d, terms = distances(x, **space), []
    for a in range(len(labels)):
        positives, negatives = _partners(d, labels, a)
        positive = max(positives, default=0.0)
        terms.append(hinge(positive - min(negatives, default=positive), margin))
    return mean(terms)


def triplet_semi_hard_of_every_anchor(
    labels: np.ndarray, x: np.ndarray, margin: float | str = 0.3, **space: Any
) -> float:
    space.pop("zero_for_missing")
    d = distances(x, **space)
    found = comparisons_semi_hard(d, labels)
    if len(set(labels.tolist())) == 1:
        found = [(p, 0.0) for a in range(len(labels)) for p in _partners(d, labels, a)[0]]
    return mean([hinge(positive - negative, margin) for positive, negative in found])


def soft_triplet_hard(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float | str = 0.3,
    temperature: float = 1.0,
    stop_gradient_weights: bool = True,
    constant: np.ndarray | None = None,
    **space: Any,
) -> float:
    """Compute the weights at `constant`, without a gradient, if it is an argument."""
    d, terms = distances(x, **space), []
    weights = d if constant is None else distances(constant, **space)
    for a in range(len(labels)):
        means = []
        for of, sign in zip((0, 1), (1, -1), strict=True):
            values, chosen = _partners(d, labels, a)[of], _partners(weights, labels, a)[of]
            shift = max((sign * v for v in chosen), default=0.0)
            w = [math.exp((sign * v - shift) / temperature) for v in chosen]
            means += [sum(p * q for p, q in zip(w, values, strict=True)) / sum(w)] if w else []
        if len(means) == 2:
            terms.append(hinge(means[0] - means[1], margin))
    return mean(terms)


def improved_triplet(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float | str = 1.0,
    pull: float = 0.01,
    weight: float = 0.002,
    miner: str = "batch_hard",
    distance: str = "squared_euclidean",
    normalize: bool = True,
) -> float:
    found = MINERS[miner](distances(x, distance, normalize), labels)
    return mean([hinge(p - n, margin) + weight * max(p - pull, 0.0) for p, n in found])


def quadruplet(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float | str = 1.0,
    margin2: float | str = 0.5,
    miner: str = "batch_hard",
    adaptive: bool = False,
    distance: str = "squared_euclidean",
    normalize: bool = True,
    constant: np.ndarray | None = None,
) -> float:
    d = distances(x, distance, normalize)
    if adaptive:
        margin = adaptive_margin(labels, x if constant is None else constant, distance, normalize)
        margin2 = margin / 2
    near = [hinge(p - n, margin) for p, n in MINERS[miner](d, labels)]
    apart = [hinge(p - n, margin2) for p, n in comparisons_apart(d, labels, miner)]
    return mean(near) + mean(apart)


def adaptive_margin(labels: np.ndarray, x: np.ndarray, distance: str, normalize: bool) -> float:
    positive, negative = pairs_of(distances(x, distance, normalize), labels)
    return max(mean(negative) - mean(positive), 0.0)


def improved_quadruplet(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float | str = 1.0,
    margin2: float | str = 0.5,
    pull: float = 0.01,
    weight: float = 0.002,
    push: float = 1.0,
    push_weight: float = 0.0,
    distance: str = "squared_euclidean",
    normalize: bool = True,
) -> float:
    d = distances(x, distance, normalize)
    near = [
        hinge(p - n, margin) + weight * max(p - pull, 0.0)
        for p, n in comparisons_batch_hard(d, labels)
    ]
    apart = [
        hinge(p - n, margin2) + push_weight * max(push - n, 0.0)
        for p, n in comparisons_apart(d, labels, "batch_hard")
    ]
    return mean(near) + mean(apart)


def comparisons_apart(d: np.ndarray, labels: np.ndarray, miner: str) -> list[tuple[float, float]]:
    """Positive pairs of an anchor, and pairs of two further identities."""
    found, b = [], len(labels)
    for a in range(b):
        positives, _ = _partners(d, labels, a)
        others = [j for j in range(b) if labels[j] != labels[a]]
        pairs = [float(d[k, m]) for k in others for m in others if labels[k] != labels[m]]
        if positives and pairs and miner == "batch_hard":
            found.append((max(positives), min(pairs)))
        elif miner == "batch_all":
            found += [(p, n) for p in positives for n in pairs]
    return found


def pairs_of(d: np.ndarray, labels: np.ndarray) -> tuple[list[float], list[float]]:
    partners = [_partners(d, labels, a) for a in range(len(labels))]
    return [p for row, _ in partners for p in row], [n for _, row in partners for n in row]


def contrastive(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float = 1.0,
    form: str = "hadsell",
    reduce_pairs: str = "balanced",
    pairs: str = "batch",
    distance: str = "euclidean",
    normalize: bool | None = None,
) -> float:
    if pairs == "given":
        given = np.asarray(x, "float64").ravel().tolist()
        positive = [d for d, same in zip(given, labels, strict=True) if same]
        negative = [d for d, same in zip(given, labels, strict=True) if not same]
    else:
        positive, negative = pairs_of(distances(x, distance, normalize is not False), labels)
    pull = [d if form == "linear" else d * d for d in positive]
    if form == "hadsell":
        push = [max(margin - d, 0.0) ** 2 for d in negative]
    else:
        push = [max(margin - (d if form == "linear" else d * d), 0.0) for d in negative]
    if reduce_pairs == "all":
        return mean(pull + push)
    if reduce_pairs == "nonzero":
        pull, push = [t for t in pull if t > 0], [t for t in push if t > 0]
    return mean(pull) + mean(push)


def lifted_structure(labels: np.ndarray, x: np.ndarray, margin: float = 0.3, **space: Any) -> float:
    d, terms = distances(x, **space), []
    for a in range(len(labels)):
        positives, negatives = _partners(d, labels, a)
        if positives and negatives:
            total = _log_sum_exp(positives) + _log_sum_exp([margin - n for n in negatives])
            terms.append(max(total, 0.0))
    return mean(terms)


def circle(
    labels: np.ndarray,
    x: np.ndarray,
    margin: float = 0.25,
    scale: float = 64.0,
    distance: str = "cosine",
    normalize: bool = False,
    constant: np.ndarray | None = None,
) -> float:
    """Compute the weights at `constant`, without a gradient, if it is an argument."""
    d, terms = distances(x, distance, normalize), []
    weights = d if constant is None else distances(constant, distance, normalize)
    for a in range(len(labels)):
        positives, negatives = _partners(d, labels, a)
        weigh_p, weigh_n = _partners(weights, labels, a)
        if positives and negatives:
            pull = [
                -scale * max(1 + margin - (1 - w), 0.0) * ((1 - p) - (1 - margin))
                for p, w in zip(positives, weigh_p, strict=True)
            ]
            push = [
                scale * max((1 - w) + margin, 0.0) * ((1 - n) - margin)
                for n, w in zip(negatives, weigh_n, strict=True)
            ]
            terms.append(hinge(_log_sum_exp(pull) + _log_sum_exp(push), "soft"))
    return mean(terms)


def _log_sum_exp(values: list[float]) -> float:
    shift = max(values)
    return shift + math.log(sum(math.exp(v - shift) for v in values))


def mean(terms: list[float]) -> float:
    return math.fsum(terms) / len(terms) if terms else 0.0


def hinge(excess: float, margin: float | str) -> float:
    if isinstance(margin, str):
        return max(excess, 0.0) + math.log1p(math.exp(-abs(excess)))
    return max(excess + margin, 0.0)


def smoothed_cross_entropy(
    labels: np.ndarray, logits: np.ndarray, label_smoothing: float = 0.1
) -> float:
    total = 0.0
    for label, row in zip(labels, np.asarray(logits, "float64").tolist(), strict=True):
        shift = max(row)
        log_sum = shift + math.log(sum(math.exp(z - shift) for z in row))
        for c, z in enumerate(row):
            target = (1 - label_smoothing) * (c == label) + label_smoothing / len(row)
            total -= target * (z - log_sum)
    return total / len(labels)


# --- gradients by central differences


def gradient(function: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """`∂f/∂x`, one entry after the other."""
    slopes = np.zeros(x.shape)
    for index in np.ndindex(*x.shape):
        direction = np.zeros(x.shape)
        direction[index] = 1.0
        slopes[index] = directional_derivative(function, x, direction)
    return slopes


def directional_derivative(
    function: Callable[[np.ndarray], float], x: np.ndarray, direction: np.ndarray
) -> float:
    """`⟨∂f/∂x, direction⟩` from two values. A random direction sees an error in any entry."""
    x = np.asarray(x, "float64")
    step = 1e-6 * np.abs(x).max()
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def kinked(function: Callable[[np.ndarray], float], x: np.ndarray, direction: np.ndarray) -> bool:
    """Return True if a hinge opens, or the hardest comparison changes, at this point."""
    x = np.asarray(x, "float64")
    step = 1e-6 * np.abs(x).max() * direction
    behind, ahead = function(x) - function(x - step), function(x + step) - function(x)
    return abs(ahead - behind) > 0.01 * max(abs(ahead), abs(behind))


def normalized(x: np.ndarray, epsilon: float) -> np.ndarray:
    """Batch normalization in inference with mean 0, variance 1, scale 1 and no shift."""
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
