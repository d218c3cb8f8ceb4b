"""Naive float64 versions of stripe and part pooling, independent of the package."""

import math

import numpy as np


def rows_of(stripe: int, rows: int, stripes: int) -> list[int]:
    """The rows that overlap the stripe when the height is cut into equal stripes."""
    begin, end = stripe * rows / stripes, (stripe + 1) * rows / stripes
    return [r for r in range(rows) if r < end - 1e-9 and r + 1 > begin + 1e-9]


def stripes(x: np.ndarray, count: int, pooling: str = "avg") -> np.ndarray:
    x = np.asarray(x, "float64")
    images, rows, columns, channels = x.shape
    result = np.zeros((images, count, channels))
    for n, s, c in np.ndindex(images, count, channels):
        values = [x[n, r, w, c] for r in rows_of(s, rows, count) for w in range(columns)]
        result[n, s, c] = max(values) if pooling == "max" else sum(values) / len(values)
    return result


def refined(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """`mean_hw p · P(p|f) · f` with `P = softmax_p(W f + c)`."""
    x = np.asarray(x, "float64")
    images, rows, columns, channels = x.shape
    parts = len(bias)
    result = np.zeros((images, parts, channels))
    for n, r, w in np.ndindex(images, rows, columns):
        scores = [
            sum(kernel[c, p] * x[n, r, w, c] for c in range(channels)) + bias[p]
            for p in range(parts)
        ]
        largest = max(scores)
        powers = [math.exp(score - largest) for score in scores]
        for p in range(parts):
            result[n, p] += parts * powers[p] / sum(powers) * x[n, r, w] / (rows * columns)
    return result


def part_logits(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Logits of parts (b, p, d) and classifiers (p, d, c)."""
    result = np.zeros((*x.shape[:2], kernel.shape[2]))
    for b, p, c in np.ndindex(result.shape):
        result[b, p, c] = sum(float(x[b, p, d]) * kernel[p, d, c] for d in range(x.shape[2]))
    return result
