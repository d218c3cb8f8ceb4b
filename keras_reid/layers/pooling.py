"""Pooling of a feature map into one vector."""

from functools import partial
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_reid")
class GeneralizedMeanPooling2D(keras.layers.Layer):
    """`(mean_hw max(x, epsilon)^p)^(1/p)`: `(b, h, w, d)` → `(b, d)`.

    `p = 1` is average pooling of a non-negative map and `p → ∞` max pooling; `p` is one learned
    number (Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI
    2019, arXiv:1711.02512). It is computed in float32, since `x^p` overflows in half precision.

    Args:
        p: initial exponent, at least 1.
        epsilon: floor of the activations; keeps the gradient of the power finite at 0.

    Example:
        >>> import numpy as np
        >>> maps = np.array([0.0, 2.0]).reshape(1, 1, 2, 1)  # mean 1, maximum 2
        >>> print(np.round(GeneralizedMeanPooling2D(p=3.0)(maps), 2))  # (8 / 2)^(1/3)
        [[1.59]]
    """

    def __init__(self, p: float = 3.0, epsilon: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_p = p
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.p = self.add_weight(
            name="p", shape=(), initializer=keras.initializers.Constant(self.initial_p)
        )

    def call(self, inputs: Any) -> Any:
        x = ops.maximum(ops.cast(inputs, "float32"), self.epsilon)
        p = ops.cast(self.p, "float32")
        # exp(p log x) is x^p in half of the time: its gradient needs no second logarithm.
        mean = ops.mean(ops.exp(p * ops.log(x)), axis=(1, 2))
        return ops.cast(ops.exp(ops.log(mean) / p), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "p": self.initial_p, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="keras_reid")
class AverageMaxPooling2D(keras.layers.Layer):
    """`mean_hw x + max_hw x`: `(b, h, w, d)` → `(b, d)`, in float32.

    Example:
        >>> import numpy as np
        >>> maps = np.array([1.0, 2.0, 3.0, 6.0]).reshape(1, 2, 2, 1)
        >>> print(np.array(AverageMaxPooling2D()(maps)))  # 3 + 6
        [[9.]]
    """

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        return ops.cast(ops.mean(x, axis=(1, 2)) + ops.max(x, axis=(1, 2)), self.compute_dtype)


global_average = partial(keras.layers.GlobalAveragePooling2D, data_format="channels_last")
global_max = partial(keras.layers.GlobalMaxPooling2D, data_format="channels_last")
