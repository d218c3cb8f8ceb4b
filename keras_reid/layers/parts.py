"""Parts of a person, pooled from stripes or from assigned pixels."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_reid.layers.stripes import windows

Shape = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="keras_reid")
class PartPooling(keras.layers.Layer):
    """`g_p = mean_hw A_p f`: `(b, h, w, d)` → `(b, p, d)`, A the assignment of pixels to parts.

    At first A assigns p stripes, and `g_p` is the mean of a stripe (PCB). If `refined` is 1, it is
    `A_p = p · P(p|f)` with `P = softmax_p(W f + c)`: a pixel belongs to the most similar part at
    any height (refined part pooling; both Sun et al., ECCV 2018, arXiv:1711.09349). With a P that
    is 1 within the stripes both are equal. Refined parts must be induced: train with stripes, then
    W alone with `refined` 1, then all. The weight `refined` is not trained, but saved.

    The sums over pixels and the softmax are computed in float32.

    Args:
        parts: p, at most h.
        refinable: create W, c and `refined`.

    Raises:
        InputError: more parts than rows.

    Example:
        >>> import numpy as np
        >>> maps = np.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1, 1)
        >>> print(np.array(PartPooling(parts=2)(maps)).ravel())
        [2. 6.]
    """

    def __init__(self, parts: int, refinable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.parts = parts
        self.refinable = refinable

    def build(self, input_shape: Shape) -> None:
        rows = input_shape[1] or 0
        stripes = np.zeros((rows, 1, self.parts), "float32")
        for part, (first, end) in enumerate(windows(rows, self.parts)):
            stripes[first:end, :, part] = rows / (end - first)
        self.stripes = stripes
        if not self.refinable:
            return
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.parts),
            initializer=keras.initializers.RandomNormal(stddev=0.001),
            autocast=False,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.parts,), initializer="zeros", autocast=False
        )
        self.refined = self.add_weight(
            name="refined", shape=(), initializer="zeros", trainable=False, autocast=False
        )

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        assignment = ops.broadcast_to(self.stripes, (*ops.shape(x)[:3], self.parts))
        if self.refinable:
            kernel, bias = (ops.cast(weight, "float32") for weight in (self.kernel, self.bias))
            learned = self.parts * ops.softmax(ops.matmul(x, kernel) + bias)
            assignment = ops.where(self.refined > 0, learned, assignment)
        pixels = ops.cast(ops.shape(x)[1] * ops.shape(x)[2], "float32")
        return ops.cast(ops.einsum("bhwp,bhwd->bpd", assignment, x) / pixels, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "parts": self.parts, "refinable": self.refinable}
