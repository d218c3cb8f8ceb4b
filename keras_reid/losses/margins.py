"""Angular margins of `MarginSoftmaxLoss`."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

Tensor = Any


def arcface(cosine: Tensor, margin: float) -> Tensor:
    """`cos(θ + m)`; beyond θ = π − m, where it would rise again, `cos θ − m sin m`."""
    # The root has an infinite gradient at 0, and a single `where` around it is NaN under XLA.
    squared = (1 - cosine) * (1 + cosine)
    zero = squared <= 0
    sine = ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, squared)))
    turned = cosine * math.cos(margin) - sine * math.sin(margin)
    return ops.where(cosine >= -math.cos(margin), turned, cosine - margin * math.sin(margin))


def cosface(cosine: Tensor, margin: float) -> Tensor:
    """`cos θ − m`."""
    return cosine - margin


def sphere(cosine: Tensor, margin: float) -> Tensor:
    """`(−1)^k cos(mθ) − 2k` for θ in [kπ/m, (k + 1)π/m]: falls all the way from 1 to 1 − 2m."""
    # A Chebyshev polynomial of cos θ has finite gradients; arccos does not.
    previous, current, k = ops.ones_like(cosine), cosine, ops.zeros_like(cosine)
    for j in range(1, int(margin)):
        previous, current = current, 2 * cosine * current - previous
        k += ops.cast(cosine < math.cos(j * math.pi / margin), "float32")
    return (1 - 2 * (k % 2)) * current - 2 * k


class Margin(NamedTuple):
    """Angular margin of a softmax.

    Attributes:
        apply: function `(cosine, margin)` → ψ. ψ replaces the cosine of an image and the weights
            of its own identity.
        usual: default margin.
        allows: whether a margin is valid.
        rule: valid margins, in words.
    """

    apply: Callable[[Tensor, float], Tensor]
    usual: float
    allows: Callable[[float], bool]
    rule: str


ARCFACE = Margin(arcface, 0.5, lambda m: 0 <= m <= math.pi / 2, "an angle in [0, π/2]")
COSFACE = Margin(cosface, 0.35, lambda m: 0 <= m <= 2, "a cosine in [0, 2]")
SPHERE = Margin(
    sphere, 4, lambda m: m >= 1 and float(m).is_integer(), "a whole factor of at least 1"
)
