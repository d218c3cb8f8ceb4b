"""Layers between the attribute classifier and the embedding."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_reid.losses.attributes import checked_groups

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_reid")
class AttributeProbabilities(keras.layers.Layer):
    """`σ(z_m)`, or `softmax(z_g)_m` within a group g of exclusive attributes: `(b, m)` → `(b, m)`.

    Computed in float32.

    Args:
        exclusive: groups of columns; at most one column of a group is true.

    Raises:
        InputError: an empty group, a column in two groups, or an unknown column.

    Example:
        >>> import numpy as np
        >>> layer = AttributeProbabilities(exclusive=[[1, 2]])
        >>> print(np.round(layer(np.log([[1.0, 1.0, 3.0]])), 2))  # columns 1 and 2 add up to 1
        [[0.5  0.25 0.75]]
    """

    def __init__(
        self, exclusive: Sequence[Sequence[int]] = (), *, dtype: Any = "float32", **kwargs: Any
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.exclusive = tuple(tuple(int(i) for i in group) for group in exclusive)

    def build(self, input_shape: Shape) -> None:
        checked_groups(self.exclusive, input_shape[-1] or 0)

    def call(self, inputs: Any) -> Any:
        logits = ops.cast(inputs, "float32")
        columns = list(ops.unstack(ops.sigmoid(logits), axis=-1))
        for group in self.exclusive:
            shares = ops.softmax(ops.take(logits, group, axis=-1), axis=-1)
            for place, column in enumerate(group):
                columns[column] = shares[..., place]
        return ops.stack(columns, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "exclusive": [list(group) for group in self.exclusive]}


@keras.saving.register_keras_serializable(package="keras_reid")
class AttributeReweighting(keras.layers.Layer):
    """`σ(V a + b) ∘ a`: weight of an attribute, given all others: `(b, m)` → `(b, m)`.

    The attribute re-weighting module of Lin et al. (Pattern Recognition 2019, arXiv:1703.07220).

    Example:
        >>> layer = AttributeReweighting()
        >>> layer.build((None, 3))
        >>> [tuple(weight.shape) for weight in layer.weights]
        [(3, 3), (3,)]
    """

    def build(self, input_shape: Shape) -> None:
        width = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel", shape=(width, width), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return ops.sigmoid(ops.matmul(inputs, self.kernel) + self.bias) * inputs
