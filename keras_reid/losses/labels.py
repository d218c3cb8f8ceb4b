"""Identity labels of a batch, which are compared before Keras casts them to a loss's dtype."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_reid.errors import Shown, invalid
from keras_reid.losses.common import ReidLoss

Tensor = Any
INDICES = "one identity index for each image"


class LabeledLoss(ReidLoss):
    """Base of losses that read identity labels `y_true`, `(b,)` or `(b, 1)`.

    `keras.losses.Loss` casts `y_true` to the dtype of the loss. Different integers then become
    equal: above 256 in bfloat16, 2,048 in float16 and 2²⁴ in float32. Here integer labels reach
    `call` as integers. Floats stay floats.
    """

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Any:
        return self.reduced(self.call, y_true, y_pred, sample_weight)

    def reduced(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        y_true: Tensor,
        y_pred: Tensor,
        sample_weight: Tensor | None,
    ) -> Tensor:
        """Weigh and average `function(labels, y_pred)` `(b,)` as Keras does with `call`.

        Raises:
            InputError: if the labels are text or objects, have several columns, or their number is
                not that of the predictions; outside of a graph, if they are not integers.
        """
        labels = checked_labels(y_true, y_pred)
        loss = _Reduced(
            lambda predictions: function(labels, predictions),
            reduction=self.reduction,
            name=self.name,
            dtype=self.dtype,
        )
        return loss((), y_pred, sample_weight)


class _Reduced(keras.losses.Loss):
    """Loss `(b, …) -> (b,)` of only the predictions, so that Keras casts no labels."""

    def __init__(self, function: Callable[[Tensor], Tensor], **common: Any) -> None:
        super().__init__(**common)
        self.function = function

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return self.function(y_pred)


def checked_labels(y_true: Tensor, y_pred: Any) -> Tensor:
    """Return the labels `(b,)` of predictions `(b, …)`: int32, int64, or floats as they are.

    Raises:
        InputError: if the labels are text or objects, have several columns, or their number is not
            that of the predictions, as far as the static shapes show; outside of a graph, if they
            are NaN, infinite or fractions.
    """
    _check_numeric(y_true)
    labels = ops.convert_to_tensor(y_true)
    if getattr(labels.shape, "rank", 1) is not None:  # None: not static in TensorFlow
        _check_shape(tuple(labels.shape), y_pred)
    labels = ops.reshape(_integers(labels), (-1,))
    if _is_float(labels):
        _check_integral(labels)
    return labels


def class_indices(labels: Tensor) -> Tensor:
    """Return the labels as integers; floats are truncated."""
    return ops.cast(labels, "int32") if _is_float(labels) else labels


def _check_numeric(y_true: Any) -> None:
    dtype = getattr(y_true, "dtype", None)
    if dtype is None and not any(map(ops.is_tensor, keras.tree.flatten(y_true))):
        dtype = np.asarray(y_true).dtype
    name = getattr(dtype, "name", str(dtype)).lower()  # torch's types have no name
    if dtype is not None and not any(kind in name for kind in ("int", "float", "bool")):
        fix = "Convert names with numpy.unique(names, return_inverse=True)[1]."
        raise invalid("y_true", INDICES, Shown(f"labels of type {name}"), fix)


def _check_integral(labels: Tensor) -> None:
    """Raise for labels with NaN, infinity or fractions; in a graph they have no values yet."""
    try:
        values = ops.convert_to_numpy(labels)
    except (TypeError, ValueError, RuntimeError):  # of JAX, Keras, and TensorFlow or torch
        return
    with np.errstate(invalid="ignore"):
        wrong = values[values % 1 != 0]  # infinity % 1 is NaN
    if len(wrong):
        raise invalid("y_true", INDICES, wrong[0].item(), "Pass integers.")


def _check_shape(shape: tuple[int | None, ...], predictions: Any) -> None:
    counts = [output.shape[0] for output in keras.tree.flatten(predictions)]
    one_column = bool(shape) and all(size in (1, None) for size in shape[1:])
    if not one_column or any(None not in (shape[0], n) and shape[0] != n for n in counts):
        rule = f"{INDICES}, of shape (b,) or (b, 1)"
        fix = "Convert one-hot labels with argmax(axis=-1)."
        raise invalid("y_true", rule, Shown(f"shape {shape} for {counts[0]} predictions"), fix)


def _integers(labels: Tensor) -> Tensor:
    """Return integers of any kind as int32 or int64, and floats as they are."""
    if _is_float(labels) or keras.backend.standardize_dtype(labels.dtype) in ("int32", "int64"):
        return labels
    wide = keras.backend.standardize_dtype(labels.dtype) == "uint64"
    return ops.cast(labels, "int64" if wide else "int32")


def _is_float(labels: Tensor) -> bool:
    return "float" in keras.backend.standardize_dtype(labels.dtype)
