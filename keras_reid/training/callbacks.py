"""Callbacks: retrieval scores, warnings of collapse, finite losses, backups and history."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from absl import logging

from keras_reid import evaluation, inference, replicas
from keras_reid.data import PersonImages, joined
from keras_reid.errors import InputError
from keras_reid.io import check_room, replaced_file
from keras_reid.losses import MetricLoss
from keras_reid.models import ReidModel
from keras_reid.training.mutual import MutualLearner, SavedSeeds
from keras_reid.training.runs import read_history


class Ranking(NamedTuple):
    """Result of a ranking, with the embeddings (q, d) and (g, d) of images or tracklets."""

    result: evaluation.RankingResult
    embeddings: tuple[np.ndarray, np.ndarray]
    query: PersonImages
    gallery: PersonImages


def rank_images(
    embed: Callable[[Any], Any],
    query: PersonImages,
    gallery: PersonImages,
    protocol: str | evaluation.Protocol = "market1501",
) -> Ranking:
    """Rank the features `embed(images)` of two sets of images or tracklets."""
    labels = query.per_tracklet(), gallery.per_tracklet()
    embeddings = embed(query), embed(gallery)
    return Ranking(evaluation.rank(embeddings, *labels, protocol), embeddings, *labels)


class RetrievalEvaluation(keras.callbacks.Callback):
    """Adds `val_mAP` and `val_rank1` to the logs, so that `ModelCheckpoint` can monitor them.

    For a `MutualLearner` these are the scores of the best member, and `val_NAME_mAP` and
    `val_NAME_rank1` those of each member. With a moving average of the weights (`use_ema`) the
    averaged weights are evaluated. Selecting an epoch by scores of the test set overestimates the
    result: use hold-out images.

    Args:
        query, gallery: images, or tracklets with a column "tracklet".
        batch_size: number of images per forward pass.
        every: number of epochs between evaluations; the last epoch is always evaluated.
        flip: see `inference.load`.
        protocol: see `evaluation.rank`.
        dataset: name to record in the result.
        frames: number of frames of a clip, for tracklets and a model of `models.build_tracklet`.

    Attributes:
        last: last result with its embeddings.
    """

    last: Ranking

    def __init__(
        self,
        query: PersonImages,
        gallery: PersonImages,
        batch_size: int = 16,
        every: int = 1,
        flip: bool = False,
        protocol: str = "market1501",
        dataset: str | None = None,
        frames: int = 8,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.query = query
        self.gallery = gallery
        self.batch_size = batch_size
        self.every = every
        self.flip = flip
        self.protocol = evaluation.Protocol(protocol, dataset=dataset)
        self._embedders: dict[int, tuple[keras.Model, inference.Embedder]] = {}

    def score(self, model: keras.Model) -> evaluation.RankingResult:
        """Return the ranking result of a model of `models.build`."""
        # A reference to the model keeps its id unique.
        if id(model) not in self._embedders:
            self._embedders[id(model)] = model, inference.load_embedder(model, flip=self.flip)
        embedder = self._embedders[id(model)][1]

        def embed(images: PersonImages) -> np.ndarray:
            return embedder.embed(images, self.batch_size, self.frames)

        self.last = rank_images(embed, self.query, self.gallery, self.protocol)
        return self.last.result

    def summary(self, result: evaluation.RankingResult) -> dict[str, float]:
        """Return the main scores by name."""
        return {"mAP": result.mAP, "rank-1": result.rank(1)}

    def calibration(self) -> evaluation.MatchCalibration | None:
        """Fit match probabilities on the last embeddings.

        Returns:
            None if there are fewer than 10 persons with 2 images.
        """
        persons = joined(self.last.query, self.last.gallery)
        labeled = ~persons.distractor
        identities = persons.identity[labeled]
        if (np.unique(identities, return_counts=True)[1] > 1).sum() < evaluation.FEWEST_PERSONS:
            return None
        embeddings = np.concatenate(self.last.embeddings)[labeled]
        source = f"validation persons of {self.protocol.dataset or 'the data set'}"
        return evaluation.fit_calibration([(embeddings, identities)], source)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        last = epoch + 1 == self.params.get("epochs")
        if logs is None or not (last or (epoch + 1) % self.every == 0):
            return
        with averaged_weights(self.model):
            results = {name: self.score(model) for name, model in members_of(self.model).items()}
        if len(results) > 1:
            for name, result in results.items():
                logs[f"val_{name}_mAP"] = result.mAP
                logs[f"val_{name}_rank1"] = result.rank(1)
        best = max(results.values(), key=lambda result: result.mAP)
        logs["val_mAP"] = best.mAP
        logs["val_rank1"] = best.rank(1)


SIDES = ("positive", "negative")  # distances in the logs of metric losses
# If a loss learns, distances within persons are smaller than between persons by this fraction of
# the latter and of the collapse value.
APART = 0.1


class CollapseMonitor(keras.callbacks.Callback):
    """Logs a warning when a metric loss stays at its collapse value.

    When all embeddings are equal, a loss has a fixed value: the margin of a triplet loss, ln 2 with
    the soft margin. A loss that stays at it does not learn. There is no warning if the distances in
    the logs are smaller within persons than between persons, by a tenth of these distances and of
    that value.

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
            if name not in logs and "loss" not in logs:
                continue
            loss = logs[name if name in logs else "loss"]  # name in Keras of the only loss
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
    """Raises at the first step with a loss that is not finite, and names the term.

    `keras.callbacks.TerminateOnNaN` ends `fit` without an error, and NaN weights are saved. The
    last `Backup` is of the epoch before.

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
            "epoch. Lower `learning_rate`, use a longer warm-up, or normalize the features, in "
            "another run folder.",
            "learning_rate",
        )


def members_of(model: keras.Model) -> dict[str, keras.Model]:
    """Return the trained models by name: members of a learner, or the model itself."""
    return model.members if isinstance(model, MutualLearner) else {"model": model}


class averaged_weights:
    """Context that sets the weights to the moving averages of the optimizers, if they have any."""

    def __init__(self, model: keras.Model) -> None:
        self.averaged = [
            member
            for member in members_of(model).values()
            if getattr(member.optimizer, "use_ema", False)
        ]

    def __enter__(self) -> None:
        self.kept = [[v.numpy() for v in member.trainable_variables] for member in self.averaged]
        for member in self.averaged:
            member.optimizer.finalize_variable_values(member.trainable_variables)

    def __exit__(self, *exception: object) -> None:
        for member, kept in zip(self.averaged, self.kept, strict=True):
            for variable, value in zip(member.trainable_variables, kept, strict=True):
                variable.assign(value)


class TrainingState(SavedSeeds, keras.Model):
    """State of a training: weights, optimizers and seeds of a model."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model
        self.built = True


HDF5_BYTES = 4096  # overhead of an array


class Backup(keras.callbacks.Callback):
    """Saves weights and optimizer after each epoch in one file, to resume a training.

    The file is replaced atomically, so that one backup remains whenever the process is killed.
    (`keras.callbacks.BackupAndRestore` writes weights and epoch to two files; a kill between them
    repeats an epoch.) The epoch is the number of optimizer steps divided by the steps of an epoch.

    Args:
        path: file name that ends with `.weights.h5`.
        steps: number of steps of an epoch.
    """

    def __init__(self, path: str | Path, steps: int) -> None:
        super().__init__()
        self.path = Path(path)
        self.steps = steps

    def restore(self, model: keras.Model) -> int:
        """Load the backup, if it exists, and return the next epoch."""
        if not self.path.exists():
            return 0
        members = [*members_of(model).values()]
        for member in members:
            if not member.optimizer.built:
                with replicas.scope(member):
                    member.optimizer.build(member.trainable_variables)
        try:
            TrainingState(model).load_weights(self.path)
        except Exception as error:
            raise InputError(
                f"The backup {str(self.path)!r} is of another model. Use the flags of the first "
                "start, or another run folder."
            ) from error
        return int(members[0].optimizer.iterations.numpy()) // self.steps

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        variables = list(self.model.variables)
        for member in members_of(self.model).values():
            variables += member.optimizer.variables
        sizes = (math.prod(variable.shape) for variable in variables)
        check_room(self.path, sum(4 * size + HDF5_BYTES for size in sizes))
        with replaced_file(self.path) as new:
            TrainingState(self.model).save_weights(new)


class History(keras.callbacks.Callback):
    """Writes logs and seconds of each epoch as a line of JSON; a resumed run appends to them.

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
