"""Pooling of the frames of a clip into one vector. Padded frames never change it.

All are called on `[x (b, t, d), mask (b, t)]`, the mask true for valid frames, and return `(b, d)`.
A clip without frames returns 0. `TemporalAttention` takes the maps of the frames, too.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_reid.errors import Shown, invalid

Shape = tuple[int | None, ...]


def _single(inputs: Sequence[Any]) -> tuple[Any, Any]:
    """Return x in float32, 0 for padded frames, and the mask `(b, t, 1)`."""
    valid = ops.cast(inputs[1], "bool")[..., None]
    return ops.where(valid, ops.cast(inputs[0], "float32"), 0.0), valid


def _mean(x: Any, valid: Any) -> Any:
    count = ops.sum(ops.cast(valid, "float32"), axis=1)
    return ops.sum(x, axis=1) / ops.maximum(count, 1.0)


@keras.saving.register_keras_serializable(package="keras_reid")
class TemporalMean(keras.layers.Layer):
    """`mean_t x_t` over the valid frames (Gao and Nevatia, arXiv:1805.02104).

    Example:
        >>> import numpy as np
        >>> clip, mask = np.array([[[1.0], [3.0], [99.0]]]), np.array([[True, True, False]])
        >>> print(np.array(TemporalMean()([clip, mask])))
        [[2.]]
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        return ops.cast(_mean(*_single(inputs)), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_reid")
class TemporalMax(keras.layers.Layer):
    """`max_t x_t` over the valid frames (Zheng et al., MARS, ECCV 2016).

    Example:
        >>> import numpy as np
        >>> clip, mask = np.array([[[1.0], [3.0], [99.0]]]), np.array([[True, True, False]])
        >>> print(np.array(TemporalMax()([clip, mask])))
        [[3.]]
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        x, valid = _single(inputs)
        most = ops.max(ops.where(valid, x, -1e38), axis=1)
        return ops.cast(ops.where(ops.any(valid, axis=1), most, 0.0), self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_reid")
class TemporalAttention(keras.layers.Layer):
    """`Σ_t a_t x_t` with `a = softmax_t(ReLU(W ∗ ReLU(U f_t)))` over the valid frames.

    f is the whole map of a frame, so that U is a convolution as large as the map; if there are no
    maps, f is x. W covers `context` neighboring frames: 3 as published; with the default 1 the
    result does not depend on the order of the frames. Padded frames are 0, like the padding at the
    ends of the clip (Gao and Nevatia, arXiv:1805.02104).

    Args:
        width: number of channels of `U f`.
        context: number of frames that a weight depends on, odd.

    Called on `[x (b, t, d), mask (b, t)]` or `[x, mask, maps (b, t, h, w, c)]`.

    Raises:
        InputError: an even context, or sizes below 1.

    Example:
        >>> import numpy as np
        >>> clip, mask = np.array([[[1.0], [99.0]]]), np.array([[True, False]])
        >>> print(np.array(TemporalAttention(width=4)([clip, mask])))  # the only valid frame
        [[1.]]
    """

    def __init__(self, width: int = 256, context: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if width < 1 or context < 1 or context % 2 == 0:
            received = Shown(f"{context}, with width={width}")
            raise invalid("context", "odd, with a width of at least 1", received, "3 is usual.")
        self.width = width
        self.context = context
        self.spatial = keras.layers.Dense(width, activation="relu", name="spatial")
        self.across = keras.layers.Conv1D(
            1, context, padding="same", data_format="channels_last", activation="relu"
        )

    def build(self, input_shape: Sequence[Shape]) -> None:
        flat = 1
        for size in input_shape[-1][2:] if len(input_shape) > 2 else input_shape[0][2:]:
            flat *= size or 0
        self.spatial.build((None, None, flat))
        self.across.build((None, None, self.width))

    def call(self, inputs: Sequence[Any]) -> Any:
        x, valid = _single(inputs)
        maps = inputs[2] if len(inputs) > 2 else inputs[0]
        flat = ops.reshape(maps, (*ops.shape(valid)[:2], self.spatial.kernel.shape[0]))
        hidden = ops.where(valid, self.spatial(flat), 0.0)
        logits = ops.where(valid, ops.cast(self.across(hidden), "float32"), -1e38)
        weights = ops.where(valid, ops.softmax(logits, axis=1), 0.0)
        return ops.cast(ops.sum(weights * x, axis=1), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "context": self.context}


@keras.saving.register_keras_serializable(package="keras_reid")
class TemporalRecurrent(keras.layers.Layer):
    """`mean_t h_t` of an LSTM over the valid frames (Gao and Nevatia, arXiv:1805.02104).

    Padded frames do not change its state. The result depends on the order of the frames.

    Args:
        width: size of h.

    Example:
        >>> import numpy as np
        >>> clip, mask = np.ones((1, 2, 8)), np.array([[False, False]])
        >>> print(np.array(TemporalRecurrent(width=4)([clip, mask])))  # no valid frame
        [[0. 0. 0. 0.]]
    """

    def __init__(self, width: int = 512, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        # The fast kernels on GPUs require padding at the end.
        self.lstm = keras.layers.LSTM(width, return_sequences=True, use_cudnn=False)

    def build(self, input_shape: Sequence[Shape]) -> None:
        self.lstm.build(input_shape[0])

    def call(self, inputs: Sequence[Any]) -> Any:
        x, valid = _single(inputs)
        steps = self.lstm(ops.cast(x, self.compute_dtype), mask=valid[..., 0])
        steps = ops.where(valid, ops.cast(steps, "float32"), 0.0)
        return ops.cast(_mean(steps, valid), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="keras_reid")
class ClipsToFrames(keras.layers.Layer):
    """`(b, t, …)` → `(b·t, …)`: frames as images.

    Example:
        >>> import numpy as np
        >>> tuple(ClipsToFrames()(np.zeros((2, 5, 64, 32, 3))).shape)
        (10, 64, 32, 3)
    """

    def call(self, clips: Any) -> Any:
        return ops.reshape(clips, (-1, *clips.shape[2:]))


@keras.saving.register_keras_serializable(package="keras_reid")
class FramesToClips(keras.layers.Layer):
    """`[(b·t, …), mask (b, t)]` → `(b, t, …)`.

    Example:
        >>> import numpy as np
        >>> frames, mask = np.zeros((10, 128)), np.ones((2, 5), bool)
        >>> tuple(FramesToClips()([frames, mask]).shape)
        (2, 5, 128)
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        frames, mask = inputs
        return ops.reshape(frames, (*ops.shape(mask), *frames.shape[1:]))
