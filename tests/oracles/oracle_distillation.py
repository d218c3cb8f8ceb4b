"""Naive float64 versions of the distillation losses, with explicit loops over list orders.

This module does not import the package. All losses are `(teacher, student) -> (b,)`. Next to each
loss is a bound of its float32 rounding error, and of that of the slope `⟨∂ mean / ∂ student,
direction⟩`: near the minimum, a loss is smaller than the rounding error of its inputs.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import permutations
from typing import Any

import numpy as np
import oracle

# Four float32 roundings.
ROUNDING = 2.4e-7

# --- Logits


def logits(teacher: np.ndarray, student: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """`T² Σ_c p_c · (log p_c − log q_c)`, class by class."""
    divergences = []
    for t, s in zip(teacher, student, strict=True):
        log_p, log_q = log_softmax(t / temperature), log_softmax(s / temperature)
        terms = [math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True)]
        divergences.append(temperature**2 * math.fsum(terms))
    return np.array(divergences)


def log_softmax(z: np.ndarray) -> list[float]:
    values = np.asarray(z, "float64").tolist()
    shift = max(values)
    log_sum = math.log(math.fsum(math.exp(v - shift) for v in values))
    return [v - shift - log_sum for v in values]


def logits_rounding(
    teacher: np.ndarray, student: np.ndarray, direction: np.ndarray, temperature: float = 1.0
) -> tuple[np.ndarray, float]:
    """Rounding error of `log p − log q` and of the slope `T · (q − p)`."""
    log_p, log_q = (
        np.array([log_softmax(row / temperature) for row in rows]) for rows in (teacher, student)
    )
    p, q = np.exp(log_p), np.exp(log_q)
    rows = np.sum(p * (1 - log_p - log_q), axis=-1)
    slopes = np.sum((p * (1 - log_p) + q * (1 - log_q)) * np.abs(direction))
    return ROUNDING * temperature**2 * rows, ROUNDING * temperature * slopes / len(rows)


# --- Embeddings


def cosine(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    pairs = zip(np.float64(teacher), np.float64(student), strict=True)
    return np.array([1 - oracle.unit(t) @ oracle.unit(s) for t, s in pairs])


def cosine_rounding(
    teacher: np.ndarray, student: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, float]:
    """Rounding error of `t/|t| − s/|s|`, which is squared, and of its slope."""
    rows = ROUNDING * np.sqrt(2 * np.abs(cosine(teacher, student))) + ROUNDING**2
    lengths = np.linalg.norm(np.asarray(student, "float64"), axis=-1)
    sizes = np.linalg.norm(direction, axis=-1) / np.maximum(lengths, 1e-30)
    return rows, ROUNDING * float(sizes.mean())


# --- Distances


def distances(teacher: np.ndarray, student: np.ndarray, **space: Any) -> np.ndarray:
    t, s = matrix(teacher, **space), matrix(student, **space)
    b = len(t)
    return np.array([sum((t[i, j] - s[i, j]) ** 2 for j in range(b)) / b for i in range(b)])


def distances_rounding(
    teacher: np.ndarray, student: np.ndarray, direction: np.ndarray, **space: Any
) -> tuple[np.ndarray, float]:
    """Rounding error of `t − s`, which is squared, and of the slope `2/b² · (s − t)`."""
    t, s = matrix(teacher, **space), matrix(student, **space)
    on_sphere = space.get("normalize") or space.get("distance") == "cosine"
    rounding = ROUNDING * max(t.max(), s.max(), 1.0 if on_sphere else 0.0)
    rows = np.mean(2 * np.abs(t - s) * rounding + rounding**2, axis=-1)
    slopes = np.abs(_slopes(partial(matrix, **space), student, direction))
    return rows, 2 * rounding * float(slopes.mean())


def matrix(x: np.ndarray, distance: str = "euclidean", normalize: bool = False) -> np.ndarray:
    x = np.asarray(x, "float64")
    if normalize or distance == "cosine":
        x = np.array([oracle.unit(row) for row in x])
    squared = np.array([np.sum((x - row) ** 2, axis=-1) for row in x])
    return {"euclidean": np.sqrt(squared), "squared_euclidean": squared, "cosine": squared / 2}[
        distance
    ]


# --- Ranks


def ranks(
    teacher: np.ndarray, student: np.ndarray, mode: str = "soft", **arguments: Any
) -> np.ndarray:
    """`−log P_s(π_t)`, or `Σ_π P_t(π) · (log P_t(π) − log P_s(π))` over all `n!` orders."""
    t = list_scores(teacher, teacher, **arguments)
    s = list_scores(teacher, student, **arguments)
    if mode == "hard":
        return -log_probability(s)
    orders = all_orders(t.shape[1])
    log_t, log_s = log_probability(t[:, orders]), log_probability(s[:, orders])
    return np.sum(np.exp(log_t) * (log_t - log_s), axis=-1)


def list_scores(
    teacher: np.ndarray,
    embeddings: np.ndarray,
    alpha: float = 3.0,
    beta: float = 3.0,
    list_length: int = 4,
    normalize: bool = True,
) -> np.ndarray:
    """`−alpha · d^beta` `(b, n)` of the images that lie nearest for the teacher, in its order."""
    of_teacher = matrix(teacher, normalize=normalize)
    d = matrix(embeddings, normalize=normalize)
    scores = []
    for query in range(len(d)):
        others = [x for x in range(len(d)) if x != query]
        nearest = sorted(others, key=lambda x, row=of_teacher[query]: row[x])[:list_length]
        scores.append([-alpha * d[query, x] ** beta for x in nearest])
    return np.array(scores)


def log_probability(scores: np.ndarray) -> np.ndarray:
    """`log Π_i exp S_i / Σ_{j≥i} exp S_j` along the last axis."""
    rest = np.logaddexp.accumulate(scores[..., ::-1], axis=-1)[..., ::-1]
    return np.sum(scores - rest, axis=-1)


@cache
def all_orders(length: int) -> np.ndarray:
    return np.array(list(permutations(range(length))))


def ranks_rounding(
    teacher: np.ndarray, student: np.ndarray, direction: np.ndarray, **arguments: Any
) -> tuple[np.ndarray, float]:
    """Rounding error of the n log-sums for teacher and student, and of their weights."""
    losses = ranks(teacher, student, **arguments)
    arguments.pop("mode", None)
    t, s = list_scores(teacher, teacher, **arguments), list_scores(teacher, student, **arguments)
    n = t.shape[1]
    largest = ROUNDING * (np.maximum(np.abs(t), np.abs(s)).max(axis=-1) + math.log(n))
    slopes = np.abs(_slopes(partial(list_scores, teacher, **arguments), student, direction))
    return 2 * n * largest * (1 + losses), float(np.mean(largest * slopes.sum(axis=-1)))


def undecided(teacher: np.ndarray, list_length: int = 4, normalize: bool = True, **_: Any) -> bool:
    """Return True if a rounding to float32 may change the teacher's lists or their order."""
    d = np.sort(matrix(teacher, normalize=normalize), axis=-1)
    gaps = np.diff(d, axis=-1)[:, 1 : list_length + 1]
    return bool(np.any(gaps < 1e-5 * d.max()))


def _slopes(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, direction: np.ndarray
) -> np.ndarray:
    """Directional derivative like `oracle.slope`, for all numbers of an array."""
    return np.asarray(oracle.directional_derivative(function, x, direction))  # type: ignore[arg-type]
