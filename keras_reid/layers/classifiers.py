"""Layers with one learned vector per identity: directions and centers."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks, distances

Shape = tuple[int | None, ...]


class _OnePerIdentity(keras.layers.Layer):
    """Base of `CosineClassifier`, `PartClassifiers` and `Centers`."""

    def __init__(self, num_identities: int, *, dtype: Any = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)
        checks.at_least(1, num_identities=num_identities)
        self.num_identities = num_identities

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_identities": self.num_identities}


@keras.saving.register_keras_serializable(package="keras_reid")
class CosineClassifier(_OnePerIdentity):
    """`cos θ_ij = x_i · w_j / (|x_i| |w_j|)`: `(b, d)` → `(b, c)` in [−1, 1].

    The classifier of the margin softmaxes, see `keras_reid.losses.MarginSoftmaxLoss`. It is
    computed in float32: float16 has no value between the cosines of 0° and 1.8°.
    A zero row has the cosine 0 with everything and a finite gradient.

    Args:
        num_identities: c.
        dtype: dtype of the weights `(d, c)`; the cosines are float32 under any mixed precision.

    Raises:
        InputError: if there is no identity.

    Example:
        >>> import numpy as np
        >>> layer = CosineClassifier(num_identities=2)
        >>> layer.build((None, 2))
        >>> layer.set_weights([np.eye(2)])
        >>> print(np.array(layer(np.array([[3.0, 4.0]]))))
        [[0.6 0.8]]
    """

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.num_identities),
            initializer="glorot_uniform",
            autocast=False,
        )

    def call(self, inputs: Any) -> Any:
        directions = distances.unit(ops.transpose(self.kernel))
        return ops.matmul(distances.unit(inputs), ops.transpose(directions))


@keras.saving.register_keras_serializable(package="keras_reid")
class PartClassifiers(_OnePerIdentity):
    """`logits_p = h_p · W_p`, a classifier for each part: `(b, p, d)` → `(b, p, c)`.

    They share nothing and have no bias (PCB, Sun et al., ECCV 2018, arXiv:1711.09349).
    `keras_reid.losses.IdentityLoss` adds their losses up.

    Args:
        num_identities: c.
        dtype: dtype of the weights `(p, d, c)`; the logits are float32 under any mixed precision.

    Raises:
        InputError: if there is no identity.

    Example:
        >>> import numpy as np
        >>> layer = PartClassifiers(num_identities=10)
        >>> tuple(layer(np.zeros((2, 6, 256))).shape)
        (2, 6, 10)
    """

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*input_shape[1:], self.num_identities),
            initializer=keras.initializers.RandomNormal(stddev=0.001),
            autocast=False,
        )

    def call(self, inputs: Any) -> Any:
        return ops.einsum("bpd,pdc->bpc", ops.cast(inputs, "float32"), self.kernel)


@keras.saving.register_keras_serializable(package="keras_reid")
class Centers(_OnePerIdentity):
    """`|x_i − c_j|²`, the squared distances to a center of each identity: `(b, d)` → `(b, c)`.

    The weights of the center loss, see `keras_reid.losses.CenterLoss`. The centers start at 0.

    Args:
        num_identities: c.
        dtype: dtype of the centers `(c, d)`; the distances are float32 under any mixed precision.

    Raises:
        InputError: if there is no identity.

    Example:
        >>> import numpy as np
        >>> layer = Centers(num_identities=2)
        >>> print(np.array(layer(np.array([[3.0, 4.0]]))))  # the centers start at 0
        [[25. 25.]]
    """

    def build(self, input_shape: Shape) -> None:
        self.centers = self.add_weight(
            name="centers",
            shape=(self.num_identities, input_shape[-1]),
            initializer="zeros",
            autocast=False,
        )

    def call(self, inputs: Any) -> Any:
        return distances.squared_euclidean(inputs, self.centers)


# Name under which files of older versions state the class.
keras.saving.get_custom_objects()["keras_reid>Centres"] = Centers
