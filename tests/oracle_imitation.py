"""Imitation losses a second time, in float64, every order of a list on its own.

Imports nothing of the package. All are `(teacher, student) -> (b,)`; `…_compared` are the numbers
by which teacher and student are compared, `(b, k)` for both.
"""

import math
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import oracle

Compared = tuple[np.ndarray, np.ndarray]


def logits_compared(teacher: np.ndarray, student: np.ndarray, temperature: float = 1.0) -> Compared:
    t, s = np.asarray(teacher, "float64"), np.asarray(student, "float64")
    return t / temperature, s / temperature


def logits(teacher: np.ndarray, student: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    pairs = zip(*logits_compared(teacher, student, temperature), strict=True)
    return temperature**2 * np.array([divergence(t, s) for t, s in pairs])


def divergence(t: np.ndarray, s: np.ndarray) -> float:
    """`KL(σ(t) ‖ σ(s))`, class by class; at once shifted, so that the sums keep their digits."""
    log_t, log_s = _log_probabilities(t.tolist()), _log_probabilities(s.tolist())
    return math.fsum(math.exp(p) * (p - q) for p, q in zip(log_t, log_s, strict=True))


def _log_probabilities(z: list[float]) -> list[float]:
    shift = max(z)
    log_sum = math.log(math.fsum(math.exp(v - shift) for v in z))
    return [v - shift - log_sum for v in z]


def distances_compared(teacher: np.ndarray, student: np.ndarray, **space: Any) -> Compared:
    return oracle.distances(teacher, **space), oracle.distances(student, **space)


def distances(teacher: np.ndarray, student: np.ndarray, **space: Any) -> np.ndarray:
    t, s = distances_compared(teacher, student, **space)
    b = len(t)
    return np.array([sum((t[i, j] - s[i, j]) ** 2 for j in range(b)) / b for i in range(b)])


def ranks_compared(
    teacher: np.ndarray,
    student: np.ndarray,
    alpha: float = 3.0,
    beta: float = 3.0,
    list_length: int = 4,
    normalize: bool = True,
    **_: Any,
) -> Compared:
    """Scores `(b, n)` of the teacher's lists, the nearest first."""
    t, s = (oracle.distances(x, "euclidean", normalize) for x in (teacher, student))
    lists = [_nearest(t, query)[:list_length] for query in range(len(t))]

    def scores(d: np.ndarray) -> np.ndarray:
        return np.array(
            [[-alpha * d[q, x] ** beta for x in others] for q, others in enumerate(lists)]
        )

    return scores(t), scores(s)


def ranks(
    teacher: np.ndarray, student: np.ndarray, mode: str = "soft", **arguments: Any
) -> np.ndarray:
    t, s = ranks_compared(teacher, student, **arguments)
    if mode == "hard":
        return np.array([-log_probability(scores) for scores in s])
    return np.array([divergence_of_orders(*scores) for scores in zip(t, s, strict=True)])


def log_probability(scores: np.ndarray) -> np.ndarray:
    """`log Π_i exp S_i / Σ_{j≥i} exp S_j` along the last axis."""
    rest = np.logaddexp.accumulate(scores[..., ::-1], axis=-1)[..., ::-1]
    return np.sum(scores - rest, axis=-1)


def divergence_of_orders(t: np.ndarray, s: np.ndarray) -> float:
    """`Σ_π P_t(π) · (log P_t(π) − log P_s(π))`, over all `n!` orders."""
    orders = all_orders(len(t))
    log_t, log_s = log_probability(t[orders]), log_probability(s[orders])
    return math.fsum((np.exp(log_t) * (log_t - log_s)).tolist())


@cache
def all_orders(length: int) -> np.ndarray:
    return np.array(list(permutations(range(length))))


def _nearest(d: np.ndarray, query: int) -> list[int]:
    """The others, nearest first; of equally near ones the first in the batch."""
    return sorted((x for x in range(len(d)) if x != query), key=lambda x: d[query, x])


def undecided(teacher: np.ndarray, normalize: bool = True, **_: Any) -> bool:
    """Whether a rounding to float32 may change the teacher's order, but for what is equal."""
    d = oracle.distances(teacher, "euclidean", normalize)
    gaps = np.diff(np.sort(d, axis=-1), axis=-1)
    return bool(np.any((gaps > 1e-12 * d.max()) & (gaps < 1e-5 * d.max())))
