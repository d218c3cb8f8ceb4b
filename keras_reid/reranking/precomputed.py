"""Precomputed distances for re-ranking."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.nearest.arrays import real_array
from keras_reid.nearest.graph import GROUP, FeatureDistances, Size


class PrecomputedDistances(FeatureDistances):
    """Squared distances of precomputed matrices (q, q), (q, g), (g, g). Not for a tf.function.

    Args:
        qq, qg, gg: the matrices.
        squared: True if the matrices hold squared distances.

    Raises:
        InputError: matrices that do not fit, or hold negative or infinite values.
    """

    def __init__(self, qq: Any, qg: Any, gg: Any, squared: bool) -> None:
        blocks = {"qq": qq, "qg": qg, "gg": gg}
        qq, qg, gg = (_checked(name, block) for name, block in blocks.items())
        q, g = qg.shape
        if qq.shape != (q, q) or gg.shape != (g, g):
            raise InputError(
                f"`qq`, `qg` and `gg` must be (q, q), (q, g) and (g, g), got {qq.shape}, "
                f"{qg.shape} and {gg.shape}. Pass all three of one query and one gallery."
            )
        self.queries, self.size = q, q + g
        whole = np.full((self.size, self.size + -self.size % GROUP), np.inf, np.float32)
        whole[:q, :q], whole[:q, q : self.size] = qq, qg
        whole[q:, :q], whole[q:, q : self.size] = qg.T, gg
        self.whole = tf.constant(whole if squared else np.square(whole, out=whole))

    def rows(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return self.whole[start:stop, first:]

    def columns(self, start: Size, stop: Size, first: Size = 0) -> tf.Tensor:
        return tf.transpose(self.rows(start, stop, first))

    def slack(self, start: Size, stop: Size, squared: tf.Tensor) -> tf.Tensor:
        return -tf.ones_like(squared)  # precomputed distances have no rounding

    def pairs(self, first: tf.Tensor, second: tf.Tensor, dtype: str) -> tf.Tensor:
        return tf.cast(tf.gather_nd(self.whole, tf.stack([first, second], axis=1)), dtype)


def _checked(name: str, block: Any) -> np.ndarray:
    distances = real_array(block, 2, name).astype(np.float32, copy=False)
    low, high = distances.min(initial=np.inf), distances.max(initial=0)
    if not 0 <= low <= high < np.inf:
        raise InputError(
            f"`{name}` must hold finite distances of at least 0, got {low:.3g} to {high:.3g} in "
            f"shape {distances.shape}. Convert similarities to distances first."
        )
    return distances
