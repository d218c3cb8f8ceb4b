"""Callbacks: warnings of collapse, finite losses and the history of a run."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from absl import logging

from keras_reid.errors import InputError
from keras_reid.io import replaced_file
from keras_reid.losses import MetricLoss
from keras_reid.models import ReidModel
from keras_reid.training.mutual import MutualLearner
from keras_reid.training.runs import read_history

SIDES = ("positive", "negative")  # distances in the logs of metric losses
# If a loss learns, distances within persons are smaller than between persons by this fraction of
# the distances between persons and of the collapse value.
APART = 0.1


class CollapseMonitor(keras.callbacks.Callback):
    """Callback that logs a warning when a metric loss stays at its collapse value.

    When all embeddings are equal, a loss has a fixed value: the margin of a triplet loss, ln 2 with
    the soft margin. A loss that stays at this value does not learn. There is no warning if the
    distances in the logs are smaller within persons than between persons, by a tenth of these
    distances and of that value.

    Args:
        num_identities_per_batch, num_instances: P and K of the batches; some values depend on them.
        tolerance: maximum difference between loss and value, as a fraction of the value.
        patience: number of epochs in a row at the value before the warning, once for each loss.
    """

    def __init__(
        self,
        num_identities_per_batch: int = 16,
        num_instances: int = 4,
        tolerance: float = 0.02,
        patience: int = 1,
    ) -> None:
        super().__init__()
        self.num_identities_per_batch = num_identities_per_batch
        self.num_instances = num_instances
        self.tolerance = tolerance
        self.patience = patience

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.collapsed = {
            name: loss.collapse_value(self.num_identities_per_batch, self.num_instances)
            for name, loss in self._losses().items()
        }
        self.epochs = dict.fromkeys(self.collapsed, 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        for name, value in self.collapsed.items():
            loss = logs.get(name, logs.get("loss", math.inf))  # name in Keras of the only loss
            at_value = abs(loss - value) <= self.tolerance * value
            # A loss can pass that value while the model learns. The distances show the difference.
            positive, negative = (logs.get(f"{name}_{side}", 0.0) for side in SIDES)
            alike = negative - positive <= APART * max(negative, value)
            self.epochs[name] = self.epochs[name] + 1 if at_value and alike and value > 0 else 0
            if self.epochs[name] == self.patience:
                logging.warning(
                    "The loss %r was %.4g in epoch %d, near %.4g, its value for equal embeddings. "
                    "The model has collapsed or does not learn yet. Lower the learning rate, use a "
                    "longer warm-up, unsquared distances, or the soft margin (margin=soft).",
                    name,
                    loss,
                    epoch + 1,
                    value,
                )

    def _losses(self) -> dict[str, MetricLoss]:
        """Return the metric losses of the model by name in the logs."""
        if isinstance(self.model, ReidModel | MutualLearner):
            return self.model.metric_losses
        loss = self.model.loss
        if isinstance(loss, Sequence):
            loss = dict(zip(self.model.output_names, loss, strict=False))
        named = {f"{k}_loss": v for k, v in loss.items()} if isinstance(loss, Mapping) else {}
        named = named or {"loss": loss}
        return {name: one for name, one in named.items() if isinstance(one, MetricLoss)}


class FiniteLoss(keras.callbacks.Callback):
    """Callback that raises at the first step with a loss that is not finite, and names the term.

    `keras.callbacks.TerminateOnNaN` ends `fit` without an error, and NaN weights are saved. The
    last `Backup` is of the epoch before.

    >>> FiniteLoss().on_train_batch_end(7, {"loss": math.nan})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    keras_reid.errors.InputError: The loss must be finite, got NaN or infinity in loss in step 8 ...

    Raises:
        InputError: in `fit`, at that step.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if math.isfinite(logs.get("loss", 0.0)):
            return
        wrong = [name for name, value in logs.items() if not math.isfinite(value)]
        terms = ", ".join(name for name in wrong if name != "loss") or "loss"
        raise InputError(
            f"The loss must be finite, got NaN or infinity in {terms} in step {batch + 1} of an "
            "epoch. Lower `learning_rate` or normalize the features. Train in a new run folder.",
            "learning_rate",
        )


class History(keras.callbacks.Callback):
    """Callback that writes the logs and seconds of each epoch as a line of JSON.

    A resumed run appends to the file.

    Args:
        path: file to write.
        first_epoch: first epoch of this run; lines of this and later epochs are dropped.
    """

    def __init__(self, path: str | Path, first_epoch: int = 0) -> None:
        super().__init__()
        self.path = Path(path)
        self.epochs = read_history(self.path)[:first_epoch] if self.path.exists() else []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = {name: float(value) for name, value in (logs or {}).items()}
        seconds = round(time.perf_counter() - self.begin, 3)
        self.epochs.append({"epoch": epoch + 1, "seconds": seconds, **values})
        with replaced_file(self.path) as new:
            rows = (json.dumps(row) + "\n" for row in self.epochs)
            new.write_text("".join(rows), encoding="utf-8")
