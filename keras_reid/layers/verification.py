"""Layers that compare images pairwise: a gate between two maps, a distance, a learned metric."""

import math
from typing import Any

import keras
from keras import ops

from keras_reid import checks, distances
from keras_reid.distances.points import ONE_MODEL

Tensor = Any
Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_reid")
class MatchingGate(keras.layers.Layer):
    """`â = L2(a + g∘a)`, `b̂ = L2(b + g∘b)` with `g_rc = exp(−(ā_rc − b̄_rc)² / (σ_c² + ε))`.

    `ā_rc` is the mean of channel c over the width of row r: a horizontal stripe, because people
    are upright but turn. Where both stripes are similar the gate is near 1, and common features
    count up to twice. `L2` scales every position to length 1 over the channels. The width σ_c of
    each channel is learned as `log σ_c`; ε keeps the gate finite as σ → 0. Computed in float32.
    Exchanging the two maps exchanges the two results.

    The stripes of Varior et al. (Gated Siamese CNN, ECCV 2016, arXiv:1607.08378) are summarized
    by a learned convolution; here by the mean, which has no weights.

    Args:
        sigma: initial width, in units of the maps.
        epsilon: smallest variance of the gate.

    Called on `[a, b]`, two maps `(b, h, w, d)`; returns two maps of the same shape.

    Raises:
        InputError: if sigma or epsilon is not positive, or the input is not two maps of one shape.

    Example:
        >>> import numpy as np
        >>> a, b = np.array([[[[3.0, 4.0]]]]), np.array([[[[3.0, 40.0]]]])
        >>> print(np.round(MatchingGate()([a, b])[0], 2).ravel())  # direction of (2 · 3, 4)
        [0.83 0.55]
    """

    def __init__(self, sigma: float = 1.0, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        checks.above(0, sigma=sigma, epsilon=epsilon)
        self.sigma = sigma
        self.epsilon = epsilon

    def build(self, input_shape: list[Shape]) -> None:
        first, second = input_shape
        checks.shapes(first=("(b, h, w, d)", first), second=("(b, h, w, d)", second))
        self.log_sigma = self.add_weight(
            name="log_sigma",
            shape=(first[-1],),
            initializer=keras.initializers.Constant(math.log(self.sigma)),
            autocast=False,
        )

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        a, b = (ops.cast(x, "float32") for x in inputs)
        apart = ops.mean(a, axis=2, keepdims=True) - ops.mean(b, axis=2, keepdims=True)
        variance = ops.exp(2.0 * ops.cast(self.log_sigma, "float32")) + self.epsilon
        gate = ops.exp(-ops.square(apart) / variance)
        return [ops.cast(distances.unit(x + gate * x), self.compute_dtype) for x in (a, b)]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "sigma": self.sigma, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_reid")
class PairDistance(keras.layers.Layer):
    """`|x_i/|x_i| − y_i/|y_i||`, row by row: `(b, d), (b, d)` → `(b,)` in [0, 2], float32.

    Coincident rows have distance 0 and gradient 0.

    Args:
        dtype: float32 by default, because half precision is too coarse for distances.

    Example:
        >>> import numpy as np
        >>> x, y = np.array([[3.0, 4.0], [3.0, 4.0]]), np.array([[6.0, 8.0], [-3.0, -4.0]])
        >>> print(np.array(PairDistance()(x, y)))
        [0. 2.]
    """

    def __init__(self, *, dtype: Any = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def call(self, x: Tensor, y: Tensor) -> Tensor:
        rowwise = distances.paired(distances.euclidean)
        assert rowwise is not None
        return rowwise(distances.unit(x), distances.unit(y))


@keras.saving.register_keras_serializable(package="keras_reid")
class PairMetric(keras.layers.Layer):
    """`g_ij = σ(Σ_c w_c (x_ic − x_jc)² + b)`: `(b, d)` → `(b, b)`, the probability of a negative.

    The learned metric of Chen et al. (Beyond Triplet Loss, CVPR 2017, arXiv:1704.01719): a
    softmax over the two outcomes "same" and "different" of a pair. It depends only on the
    difference of their two logits, and this layer learns that difference. `g` is in (0, 1) and
    symmetric, but not a distance: coincident points have `g = σ(b)`. It starts from `w_c = 1/d`
    and `b = 0`, the mean squared difference, which suits batch-normalized features.

    The matrix is for losses with `distance="precomputed"`; the quadruplet loss of the paper
    compares `g²`. At test time `layer(query, gallery)` returns `(q, g)`: one evaluation for each
    pair, which search structures for points do not support.

    The squares are expanded about the mean point, in double precision if available: memory is
    O(n·m + (n + m)·d), and near pairs do not cancel.

    Args:
        dtype: dtype of the weights; the result is float32 under any mixed precision.

    Raises:
        InputError: if an argument is not a matrix or the widths differ.

    Example:
        >>> import numpy as np
        >>> points = np.array([[0.0, 0.0], [2.0, 0.0]])
        >>> print(np.round(PairMetric()(points), 2))  # σ(0), and σ(2) at first
        [[0.5  0.88]
         [0.88 0.5 ]]
    """

    def __init__(self, *, dtype: Any = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def build(self, x_shape: Shape, y_shape: Shape | None = None) -> None:
        sides = {"x": ("(n, d)", x_shape), "y": ("(m, d)", y_shape or x_shape)}
        checks.shapes(ONE_MODEL, **sides)
        width = x_shape[-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(width,),
            initializer=keras.initializers.Constant(1.0 / (width or 1)),
            autocast=False,
        )
        self.bias = self.add_weight(name="bias", shape=(), initializer="zeros", autocast=False)

    def call(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        a, w = ops.cast(x, distances.PRECISE), ops.cast(self.kernel, distances.PRECISE)
        b = a if y is None else ops.cast(y, distances.PRECISE)
        # A difference does not change when both sets move, so the center needs no gradient.
        center = ops.stop_gradient((ops.mean(a, axis=0) + ops.mean(b, axis=0)) / 2)
        a, b = a - center, b - center
        weighted = distances.expansion(a, b, w)
        if y is None:
            weighted = ops.where(distances.same_index(x), ops.zeros_like(weighted), weighted)
        return ops.cast(ops.sigmoid(weighted + ops.cast(self.bias, distances.PRECISE)), "float32")
