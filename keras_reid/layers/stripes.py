"""Pooling of a feature map into horizontal stripes."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks
from keras_reid.layers.registry import STRIPE_POOLINGS

Shape = tuple[int | None, ...]


def windows(rows: int, stripes: int) -> list[tuple[int, int]]:
    """Return the first row and the end of each stripe: `⌊i·h/s⌋ … ⌈(i + 1)·h/s⌉`.

    Stripes are equal if s divides h; otherwise neighbors share a row.
    """
    fix = f"The feature map has {rows} rows: use fewer, larger images or last_stride=1."
    checks.within(f"[1, {rows}]", fix, stripes=stripes)
    return [(i * rows // stripes, -(-(i + 1) * rows // stripes)) for i in range(stripes)]


@keras.saving.register_keras_serializable(package="keras_reid")
class StripePooling(keras.layers.Layer):
    """The mean or maximum of each stripe: `(b, h, w, d)` → `(b, s, d)`, from the top down.

    Stripe i begins at row `⌊i·h/s⌋`, ends before row `⌈(i + 1)·h/s⌉`, and has the full width.

    Args:
        stripes: s, at most h.
        pooling: `"avg"`, computed in float32, or `"max"`.

    Raises:
        InputError: more stripes than rows, or an unknown pooling.

    Example:
        >>> import numpy as np
        >>> maps = np.array([1.0, 3.0, 5.0, 7.0]).reshape(1, 4, 1, 1)
        >>> print(np.array(StripePooling(stripes=2, pooling="max")(maps)).ravel())
        [3. 7.]
    """

    def __init__(self, stripes: int, pooling: str = "avg", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        checks.one_of(STRIPE_POOLINGS, pooling=pooling)
        self.stripes = stripes
        self.pooling = pooling

    def build(self, input_shape: Shape) -> None:
        self.windows = windows(input_shape[1] or 0, self.stripes)

    def call(self, inputs: Any) -> Any:
        x = ops.cast(inputs, "float32")
        pool = STRIPE_POOLINGS[self.pooling]
        stripes = [pool(x[:, first:end], axis=(1, 2)) for first, end in self.windows]
        return ops.cast(ops.stack(stripes, axis=1), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stripes": self.stripes, "pooling": self.pooling}
