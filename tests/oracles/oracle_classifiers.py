"""Naive float64 versions of margin softmax and center loss, independent of the package."""

import math

import numpy as np

MARGINS = {"arcface": 0.5, "cosface": 0.35, "sphereface": 4}


def margin_softmax(
    labels: np.ndarray,
    cosines: np.ndarray,
    kind: str = "arcface",
    scale: float = 64.0,
    margin: float | None = None,
    label_smoothing: float = 0.0,
) -> float:
    """The mean over the rows. By angles throughout, as the papers write it."""
    margin = MARGINS[kind] if margin is None else margin
    total = 0.0
    for label, row in zip(labels, np.asarray(cosines, "float64").tolist(), strict=True):
        inside = [min(max(c, -1.0), 1.0) for c in row]
        logits = [
            scale * (with_margin(c, kind, margin) if j == label else c)
            for j, c in enumerate(inside)
        ]
        shift = max(logits)
        log_sum = shift + math.log(sum(math.exp(z - shift) for z in logits))
        for j, z in enumerate(logits):
            total -= ((1 - label_smoothing) * (j == label) + label_smoothing / len(row)) * (
                z - log_sum
            )
    return total / len(labels)


def with_margin(cosine: float, kind: str, margin: float) -> float:
    angle = math.acos(cosine)
    if kind == "cosface":
        return cosine - margin
    if kind == "arcface":
        turned = angle + margin
        return math.cos(turned) if turned <= math.pi else cosine - margin * math.sin(margin)
    k = min(math.floor(margin * angle / math.pi), margin - 1)
    return (-1) ** k * math.cos(margin * angle) - 2 * k


def center(labels: np.ndarray, distances: np.ndarray) -> float:
    """The mean over the rows, of squared distances (b, c)."""
    rows = np.asarray(distances, "float64").tolist()
    return sum(row[label] / 2 for label, row in zip(labels, rows, strict=True)) / len(rows)


def cosines(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Cosines of rows of x (b, d) and columns of the weights (d, c); 0 for a zero vector."""
    result = np.zeros((len(x), weights.shape[1]))
    for i, row in enumerate(np.asarray(x, "float64").tolist()):
        for j, column in enumerate(np.asarray(weights, "float64").T.tolist()):
            lengths = math.hypot(*row) * math.hypot(*column)
            product = math.fsum(p * q for p, q in zip(row, column, strict=True))
            result[i, j] = product / lengths if lengths else 0.0
    return result


def squared_distances(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Distances between the rows of x (b, d) and the centers (c, d)."""
    result = np.zeros((len(x), len(centers)))
    for i, row in enumerate(np.asarray(x, "float64").tolist()):
        for j, center in enumerate(np.asarray(centers, "float64").tolist()):
            result[i, j] = math.fsum((p - q) ** 2 for p, q in zip(row, center, strict=True))
    return result
