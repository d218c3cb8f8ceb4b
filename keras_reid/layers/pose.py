"""Parts of a person at the body points: heat maps of points, and pooling with them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_reid")
class KeypointHeatmaps(keras.layers.Layer):
    """`c_k · exp(−((x − x_k)² + (y − y_k)²) / 2σ²)`: `(b, k, 3)` → `(b, h, w, k)`, float32.

    x and y are measured in cells of the map, at the center of a cell. The maximum is at most the
    confidence `c_k`, and less if the point is between cells. The points get no gradient.

    Args:
        size: (h, w) of the map.
        sigma: σ, in cells.

    Called on points x, y (shares of the width and height of the image) and confidence.

    Example:
        >>> import numpy as np
        >>> center = np.array([[[0.5, 0.5, 1.0]]])  # x, y, confidence
        >>> print(np.round(KeypointHeatmaps(size=(1, 3))(center), 2).ravel())
        [0.61 1.   0.61]
    """

    def __init__(
        self, size: Sequence[int], sigma: float = 1.0, *, dtype: Any = "float32", **kwargs: Any
    ) -> None:
        super().__init__(dtype=dtype, **kwargs)
        self.size = tuple(size)
        self.sigma = sigma

    def call(self, inputs: Any) -> Any:
        points = ops.cast(inputs, "float32")
        height, width = self.size
        x, y, confidence = (points[:, None, None, :, i] for i in range(3))
        across = (ops.arange(width, dtype="float32") + 0.5)[None, None, :, None] - x * width
        down = (ops.arange(height, dtype="float32") + 0.5)[None, :, None, None] - y * height
        heat = ops.exp(-(across * across + down * down) / (2 * self.sigma**2))
        return ops.stop_gradient(ops.where(confidence > 0, confidence * heat, 0.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": list(self.size), "sigma": self.sigma}


@keras.saving.register_keras_serializable(package="keras_reid")
class PosePooling(keras.layers.Layer):
    """`v_p = Σ_hw a_p F` with `a_p = softmax_hw(sharpness · heat_p)`, and the visibility of parts.

    The heat of a part is the maximum over its points. Its visibility is `c_p / Σ_p c_p`, c the mean
    confidence of its points. If no point is visible, all visibilities are 0 (Wang et al., HOReID,
    CVPR 2020, arXiv:2003.08177). A part without heat is the mean of the map, with visibility 0.
    Heat and visibility get no gradient. Sums and softmax are computed in float32.

    Args:
        groups: indices of the points of each part.
        sharpness: factor of the heat before the softmax, 10 as published.

    Called on `[maps (b, h, w, d), heat (b, h, w, k), confidence (b, k)]`; returns parts
    `(b, p, d)` and visibility `(b, p)`.

    Example:
        >>> import numpy as np
        >>> maps = np.array([[[[3.0], [7.0]]]])
        >>> heat, confidence = np.eye(2).reshape(1, 1, 2, 2), np.array([[1.0, 0.0]])
        >>> parts, visibility = PosePooling(groups=[[0], [1]])([maps, heat, confidence])
        >>> print(np.round(parts, 2).ravel(), np.array(visibility))
        [3. 7.] [[1. 0.]]
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], sharpness: float = 10.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.groups = tuple(tuple(int(i) for i in group) for group in groups)
        self.sharpness = sharpness

    def call(self, inputs: list[Any]) -> tuple[Any, Any]:
        maps, heat, confidence = (ops.cast(x, "float32") for x in inputs)
        heat = ops.stack([ops.max(_of(heat, g), axis=-1) for g in self.groups], axis=1)
        flat = ops.reshape(heat, (-1, len(self.groups), maps.shape[1] * maps.shape[2]))
        attention = ops.softmax(self.sharpness * ops.stop_gradient(flat), axis=-1)
        pixels = ops.reshape(maps, (-1, maps.shape[1] * maps.shape[2], maps.shape[3]))
        parts = ops.matmul(attention, pixels)
        mean = ops.stack([ops.mean(_of(confidence, g), axis=-1) for g in self.groups], axis=1)
        total = ops.sum(mean, axis=-1, keepdims=True)
        visibility = ops.where(total > 0, mean / ops.where(total > 0, total, 1.0), 0.0)
        visibility = ops.stop_gradient(visibility)
        return ops.cast(parts, self.compute_dtype), ops.cast(visibility, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        groups = [list(group) for group in self.groups]
        return {**super().get_config(), "groups": groups, "sharpness": self.sharpness}


@keras.saving.register_keras_serializable(package="keras_reid")
class VisibleParts(keras.layers.Layer):
    """`[g/|g|, √c_1 v_1/|v_1|, … √c_p v_p/|v_p|]`: `(b, e), (b, p, d), (b, p)` → `(b, e + p·d)`.

    The inner product of two such vectors is the cosine of the whole plus the cosines of the parts
    with weights `√(c c')` (HOReID, as above). If no part is visible in both, it is the cosine of
    the whole. Computed in float32.

    Called on `[whole, parts, visibility]`.

    Example:
        >>> import numpy as np
        >>> whole, parts = np.array([[3.0, 4.0]]), np.array([[[0.0, 5.0], [5.0, 0.0]]])
        >>> print(np.round(VisibleParts()([whole, parts, np.array([[1.0, 0.0]])]), 2))
        [[0.6 0.8 0.  1.  0.  0. ]]
    """

    def __init__(self, *, dtype: Any = "float32", **kwargs: Any) -> None:
        super().__init__(dtype=dtype, **kwargs)

    def call(self, inputs: list[Any]) -> Any:
        whole, parts, visibility = (ops.cast(x, "float32") for x in inputs)
        visible = visibility > 0
        weight = ops.where(visible, ops.sqrt(ops.where(visible, visibility, 1.0)), 0.0)
        parts = weight[..., None] * ops.normalize(parts, axis=-1)
        flat = ops.reshape(parts, (-1, parts.shape[1] * parts.shape[2]))
        return ops.concatenate([ops.normalize(whole, axis=-1), flat], axis=-1)


def _of(values: Any, group: tuple[int, ...]) -> Any:
    return ops.take(values, group, axis=-1)
