"""Losses of a classifier over the identities."""

from typing import Any

import keras
from keras import ops

from keras_reid.errors import InputError

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class IdentityLoss(keras.losses.Loss):
    """`−Σ_c q_c log p_c` with `q = (1 − smoothing) · onehot + smoothing / c`.

    Smoothed cross-entropy (Szegedy et al., CVPR 2016, arXiv:1512.00567) on logits.

    Args:
        smoothing: share of the target, in [0, 1), that is spread over all identities.

    `y_true` are class indices `(b,)` or `(b, 1)` in 0 … c − 1, `y_pred` logits `(b, c)`;
    the result is `(b,)` in nats.

    Raises:
        InputError: if the smoothing is out of range or the logits are not a matrix.
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = "float32",
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if not 0 <= smoothing < 1:
            raise InputError(
                f"The smoothing is a share in [0, 1), but {smoothing} was given: 0.1 is usual, "
                "0 is plain cross-entropy."
            )
        self.smoothing = float(smoothing)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        logits = ops.cast(y_pred, "float32")
        if len(logits.shape) != 2:
            raise InputError(
                f"Identity logits are a matrix (batch, identities), but the shape is "
                f"{tuple(logits.shape)}: give the output of the classifier."
            )
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        onehot = ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        uniform = -ops.mean(ops.log_softmax(logits), axis=-1)
        return (1 - self.smoothing) * onehot + self.smoothing * uniform

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype, "smoothing": self.smoothing}
