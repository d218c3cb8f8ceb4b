"""Base class of all losses: the label that a loss reads, its name in the logs, its dtype."""

from typing import Any

import keras

from keras_reid.losses.registry import loss_name


class ReidLoss(keras.losses.Loss):
    """Loss that states which label it reads and which outputs of a `keras_reid.models.ReidModel`.

    Args:
        label: key of the labels that the loss is compared with; None: the label with the name of
            the output, else `"identity"`.
        reduction: as in `keras.losses.Loss`.
        name: name in the logs; None: the name of the class, as in `triplet_hard`.
        dtype: dtype of the computation.

    Attributes:
        outputs: names of the outputs that the loss reads as a tuple; empty: the single output
            under which it is listed.
    """

    outputs: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        label: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
        dtype: str | None = "float32",
    ) -> None:
        super().__init__(name or loss_name(type(self).__name__), reduction, dtype)
        self.label = label

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "dtype": self.dtype, "label": self.label}
