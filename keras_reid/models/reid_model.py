"""Models with named outputs, each trained by the losses that `compile` lists for it."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from absl import logging
from keras import ops

from keras_reid import replicas
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.losses import STATISTICS, MetricLoss

Tensor = Any


class OutputLoss(NamedTuple):
    """Loss of `compile`: name in the logs, outputs that it reads, and factor in the sum."""

    name: str
    outputs: tuple[str, ...]
    loss: keras.losses.Loss
    weight: float

    @property
    def logs(self) -> list[str]:
        """Names in the logs: the loss, and the statistics of a metric loss."""
        statistics = STATISTICS if isinstance(self.loss, MetricLoss) else ()
        return [self.name, *(f"{self.name}_{statistic}" for statistic in statistics)]

    def read(self, outputs: Mapping[str, Any]) -> Any:
        """Return the output that the loss reads, or a tuple of several."""
        values = tuple(outputs[name] for name in self.outputs)
        return values if len(values) > 1 else values[0]

    def label(self, y: Any) -> str | None:
        """Return the key of the label that the loss reads; None for labels that are an array.

        Raises:
            InputError: the labels `y` do not contain it.
        """
        if not isinstance(y, Mapping):
            return None
        by_output = self.outputs[0] if self.outputs[0] in y else "identity"
        label = getattr(self.loss, "label", None) or by_output
        if label not in y:
            raise InputError(
                f"The labels must contain {label!r} for the loss {self.name}, got {sorted(y)}. "
                "Add it to the batches, or pass `label` to the loss."
            )
        return label

    def measure(self, y: Any, y_pred: Mapping[str, Any], sample_weight: Any) -> list[Tensor]:
        """Return the values of `logs`: the loss without its weight, and the statistics.

        Args:
            y: labels, a dict or an array.
            y_pred: outputs of the model by name.
            sample_weight: see `weights_of`.
        """
        label = self.label(y)
        weight = weights_of(sample_weight, self.outputs[0], label)
        arguments = (y[label] if label else y, self.read(y_pred), weight)
        if not isinstance(self.loss, MetricLoss):
            return [self.loss(*arguments)]
        value, statistics = self.loss.measure(*arguments)
        return [value, *(statistics[name] for name in STATISTICS)]


def output_losses(outputs: Collection[str], **arguments: Any) -> list[OutputLoss]:
    """Return the losses of `compile(loss=…, loss_weights=…)` as a list.

    Args:
        outputs: names of the outputs of the model.
        arguments: two arguments by name. The first maps outputs to a loss or a list of losses. The
            second maps outputs to their weights, 1 by default.

    Raises:
        InputError: another structure, a key that is not an output, or two losses with one name.
    """
    (argument, loss), (factor, weights) = arguments.items()
    weights = weights or {}
    for name, value in ((argument, loss), (factor, weights)):
        if not isinstance(value, Mapping):
            fix = f'Write {name}={{"features": …, "logits": …}}.'
            raise invalid(name, "a dict by output", Shown(f"{value!r:.60}"), fix)
    losses = []
    for output, value in loss.items():
        listed = [_loss(one) for one in keras.tree.flatten(value)]
        factors = keras.tree.flatten(weights.get(output, [1.0] * len(listed)))
        if len(factors) != len(listed) or not {*weights} <= {*loss}:
            rule = f"a number for each loss, with the keys of {argument}"
            raise invalid(factor, rule, weights)
        for one, weight in zip(listed, factors, strict=True):
            read = getattr(one, "outputs", ()) or (output,)
            losses.append(OutputLoss(f"{output}_{one.name}", read, one, weight))
    used = {name for one in losses for name in one.outputs}
    if unknown := sorted(used - {*outputs}):
        fix = f"The outputs of the model are {', '.join(sorted(outputs))}."
        raise invalid(argument, "keyed by outputs of the model", unknown, fix)
    names = sorted(one.name for one in losses)
    if len({*names}) < len(names):
        rule = "a dict of losses with different names"
        raise invalid(argument, rule, names, "Pass `name` to the losses.")
    return losses


class _Function(keras.losses.Loss):
    """Loss of a function `(y_true, y_pred)`, given as the function or by name."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


def _loss(value: Any) -> keras.losses.Loss:
    one = keras.losses.get(value)
    return one if isinstance(one, keras.losses.Loss) else _Function(one)


class LossLogs:
    """Losses of a compiled model, with a mean over the batches for each entry of the logs.

    Keras tracks the metrics in attributes of a model, but not the metrics in this object, because
    each `compile` creates them again.
    """

    def __init__(self, losses: Sequence[OutputLoss] = (), names: Iterable[str] = ()) -> None:
        self.losses = losses
        self.means = {name: keras.metrics.Mean(name=name) for name in names}

    def add(self, names: Iterable[str], values: Iterable[Tensor]) -> None:
        """Add values of a batch on this replica."""
        for name, value in zip(names, values, strict=True):
            self.means[name].update_state(value)


class LossesByOutput(replicas.BuiltByOwnImages):
    """Mixin of models with losses by output, which adds their means to the logs."""

    _loss_logs = LossLogs()
    _loss_arguments = ("loss", "loss_weights")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self._loss_logs.means.values()]  # type: ignore[misc]

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        callbacks = kwargs.get("callbacks")
        if len(args) < 6 and not isinstance(callbacks, keras.callbacks.CallbackList):
            kwargs["callbacks"] = [*keras.tree.flatten(callbacks or []), PairWarning()]
        with warnings.catch_warnings():
            # Layers of outputs without a loss, as in a phase that trains the classifier alone.
            warnings.filterwarnings("ignore", "Gradients do not exist")
            return super().fit(*args, **kwargs)  # type: ignore[misc]

    def get_compile_config(self) -> dict[str, Any]:
        config = super().get_compile_config()  # type: ignore[misc]
        own = {name: getattr(self, name, None) for name in self._loss_arguments}
        return {**config, **keras.saving.serialize_keras_object(own)} if config else {}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))  # type: ignore[attr-defined]


class PairWarning(keras.callbacks.Callback):
    """Callback that warns once if the first batch has no positive or no negative pair.

    The metric losses of such a batch are 0, or have one side only.
    """

    checked = False

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        logs, self.checked = {} if self.checked else logs or {}, True
        for key, positive in logs.items():
            name = key.removesuffix("_positive")
            negative = logs.get(f"{name}_negative", positive)
            if name != key and (positive == 0) != (negative == 0):
                pair = "one identity (K = 1)" if positive == 0 else "two (P = 1)"
                logging.warning(
                    "The first batch has no pair of images of %s, which the loss %s requires. Use "
                    "batches of P identities with K images each, both at least 2, as "
                    "keras_reid.data.pk_batches returns.",
                    pair,
                    name,
                )
                return


@keras.saving.register_keras_serializable(package="keras_reid")
class ReidModel(LossesByOutput, keras.Model):
    """Functional model with a dict of outputs, trained by losses of its outputs.

        model = keras_reid.models.build("tiny", 500, (64, 32), weights="none")
        model.compile(
            "adam",
            loss={"logits": IdentityLoss(), "features": [TripletHardLoss(), CircleLoss()]},
            loss_weights={"features": [1.0, 0.1]},
            metrics={"logits": "accuracy"},
        )
        model.fit(keras_reid.data.pk_batches(images, image_size=(64, 32)), …)

    `loss` has a loss or a list of losses for an output; a loss that reads several outputs (its
    `outputs`) is listed under the first. Labels are a dict. A loss reads the label that its `label`
    names; by default, the label with the name of the output, else `"identity"`. The same holds for
    metrics. An array of labels contains the identities. `sample_weight` `(b,)` weighs images.

    The logs have `loss`, the weighted sum with the penalties of the weights, `OUTPUT_NAME` for each
    loss without its weight, and for metric losses `OUTPUT_NAME_active`, `…_positive`, `…_negative`
    and `…_norm`, see `keras_reid.losses.MetricLoss.measure`. The model trains with the training
    step of Keras under every backend.

    Raises:
        InputError: in `compile`, `loss` is missing (pass `{}` for no loss), or it has a key that is
            not an output.
    """

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, loss_weights: Any = None, **options: Any
    ) -> None:
        losses = output_losses(self.output, loss=loss, loss_weights=loss_weights)
        super().compile(optimizer, **options)
        self.loss, self.loss_weights = loss, loss_weights
        with replicas.scope(self):
            self._loss_logs = LossLogs(losses, (name for one in losses for name in one.logs))

    def compile_from_config(self, config: dict[str, Any]) -> None:
        super().compile_from_config(config)
        if self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def metric_losses(self) -> dict[str, MetricLoss]:
        """Metric losses by name in the logs."""
        losses = self._loss_logs.losses
        return {one.name: one.loss for one in losses if isinstance(one.loss, MetricLoss)}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, **_: Any
    ) -> Tensor:
        # Keras divides losses by the number of replicas and sums their gradients.
        count = replicas.count()
        total = sum(map(ops.sum, self.losses), 0.0) / count
        for one in self._loss_logs.losses:
            value, *statistics = one.measure(y, y_pred, sample_weight)
            self._loss_logs.add(one.logs, (value * count, *statistics))
            total = total + one.weight * value
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = y
        if isinstance(y_pred, Mapping):  # Keras requires a label for every output
            y = y if isinstance(y, Mapping) else {"identity": y}
            labels = {name: y.get(name, y.get("identity", y_pred[name])) for name in y_pred}
            if isinstance(sample_weight, Mapping):
                sample_weight = {name: weights_of(sample_weight, name) for name in y_pred}
        return replicas.logs(super().compute_metrics(x, labels, y_pred, sample_weight))


# Name under which files of older versions state the class.
keras.saving.get_custom_objects()["keras_reid>NamedOutputs"] = ReidModel


def uncompiled(model: keras.Model) -> ReidModel:
    """Return a model with the same layers that has no optimizer and no losses.

    Args:
        model: functional model with a dict of outputs.

    Raises:
        InputError: the model is not functional, or its outputs are not a dict.
    """
    if not isinstance(getattr(model, "output", None), Mapping):
        fix = "Build it with keras_reid.models.build."
        raise invalid("model", "functional with a dict of outputs", Shown(model.name), fix)
    return ReidModel(model.input, model.output, name=model.name)


def weights_of(sample_weight: Any, output: str, label: str | None = None) -> Any:
    """Return the weights `(b,)` of the images for an output, or None.

    Args:
        sample_weight: weights of all outputs, or by output or label; Keras repeats an array of
            weights for every label.
        output: name of the output.
        label: label of its loss; None: the identity.
    """
    if isinstance(sample_weight, Mapping):
        return sample_weight.get(output, sample_weight.get(label or "identity"))
    return sample_weight
