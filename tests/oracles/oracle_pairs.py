"""Naive float64 versions of the layers for pairs, independent of the package."""

import math

import numpy as np


def matching_gate(
    a: np.ndarray, b: np.ndarray, sigma: np.ndarray, epsilon: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Two maps (n, h, w, d) and the widths (d,) -> the two gated maps."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    gated = np.zeros_like(a), np.zeros_like(b)
    images, height, width, channels = a.shape
    for n in range(images):
        for r in range(height):
            gate = []
            for c in range(channels):
                mean_a = sum(a[n, r, x, c] for x in range(width)) / width
                mean_b = sum(b[n, r, x, c] for x in range(width)) / width
                gate.append(math.exp(-((mean_a - mean_b) ** 2) / (sigma[c] ** 2 + epsilon)))
            for x in range(width):
                for source, out in zip((a, b), gated, strict=True):
                    opened = [source[n, r, x, c] * (1 + gate[c]) for c in range(channels)]
                    out[n, r, x] = _unit(opened)
    return gated


def pair_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Rows (n, d) and rows (n, d) -> the chords (n,)."""
    return np.array([math.dist(_unit(p), _unit(q)) for p, q in zip(x, y, strict=True)])


def pair_metric(x: np.ndarray, y: np.ndarray, kernel: np.ndarray, bias: float) -> np.ndarray:
    """(n, d) and (m, d) -> (n, m): a softmax over the outcomes "same", "different" of each pair."""
    out = np.zeros((len(x), len(y)))
    for i, p in enumerate(np.asarray(x, "float64")):
        for j, q in enumerate(np.asarray(y, "float64")):
            squares = [(s - t) ** 2 for s, t in zip(p, q, strict=True)]
            different = sum(w * square for w, square in zip(kernel, squares, strict=True)) + bias
            same, highest = 0.0, max(0.0, different)
            weights = math.exp(same - highest), math.exp(different - highest)
            out[i, j] = weights[1] / sum(weights)
    return out


def _unit(values: np.ndarray | list[float]) -> list[float]:
    values = [float(value) for value in values]
    length = math.sqrt(sum(value * value for value in values))
    return [value / length if length > 0 else value for value in values]
