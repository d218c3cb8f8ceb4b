"""Mixing of image styles, so that a model does not depend on the style of a camera."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_reid")
class MixStyle(keras.layers.Layer):
    """`σ' (x − μ)/σ + μ'` with `σ' = λσ + (1 − λ)σ(y)`, `μ' = λμ + (1 − λ)μ(y)`; at test time x.

    μ and σ are mean and standard deviation over the positions of a map `(b, h, w, c)`, constants
    for the gradient; y is another image of the batch, drawn by a permutation, and λ of each image
    is drawn from Beta(α, α). Differences between cameras are mostly in these statistics (Zhou et
    al., MixStyle, ICLR 2021, arXiv:2104.02008).

    Args:
        probability: probability that a batch is mixed, in [0, 1].
        alpha: α, above 0; with small values most images keep their style or take another one.
        epsilon: added to variances.
        seed: random seed.

    Raises:
        InputError: numbers out of range.

    Example:
        >>> import numpy as np
        >>> maps = np.random.default_rng(0).normal(size=(8, 4, 2, 3)).astype("float32")
        >>> layer = MixStyle(probability=1.0, seed=0)
        >>> same = layer(maps), layer(maps, training=True)
        >>> [bool(np.all(output == maps)) for output in same]
        [True, False]
    """

    def __init__(
        self,
        probability: float = 0.5,
        alpha: float = 0.1,
        epsilon: float = 1e-6,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        checks.within("[0, 1]", "0.5 is usual.", probability=probability)
        checks.above(0, alpha=alpha, epsilon=epsilon)
        self.probability, self.alpha, self.epsilon = probability, alpha, epsilon
        self.seed = seed
        self.draws = keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training:
            return inputs
        x = ops.cast(inputs, "float32")
        count = ops.shape(x)[0]
        mean, variance = ops.moments(x, axes=(1, 2), keepdims=True)
        mean, deviation = map(ops.stop_gradient, (mean, ops.sqrt(variance + self.epsilon)))
        other = keras.random.shuffle(ops.arange(count), seed=self.draws)
        own = keras.random.beta(
            (count, 1, 1, 1), self.alpha, self.alpha, "float32", seed=self.draws
        )
        mixes = (
            keras.random.uniform((1, 1, 1, 1), dtype="float32", seed=self.draws) < self.probability
        )
        own = ops.where(mixes, own, 1.0)
        mixed_mean = own * mean + (1 - own) * ops.take(mean, other, axis=0)
        mixed_deviation = own * deviation + (1 - own) * ops.take(deviation, other, axis=0)
        mixed = mixed_deviation * ((x - mean) / deviation) + mixed_mean
        return ops.cast(ops.where(mixes, mixed, x), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "probability": self.probability,
            "alpha": self.alpha,
            "epsilon": self.epsilon,
            "seed": self.seed,
        }
