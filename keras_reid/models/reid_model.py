"""Models with named outputs, each trained by the losses that `compile` lists for it."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from absl import logging
from keras import ops

from keras_reid import replicas
from keras_reid.errors import InputError
from keras_reid.losses import STATISTICS, MetricLoss

Tensor = Any
CALLBACKS = 4  # position of `callbacks` among the arguments of `fit` after x and y


class CompiledLoss(NamedTuple):
    """Loss of `compile`: name in the logs, outputs that it reads, and factor in the sum."""

    name: str
    outputs: tuple[str, ...]
    loss: keras.losses.Loss
    weight: float

    def of(self, outputs: Mapping[str, Any]) -> Any:
        """Return the output that the loss reads, or a tuple of several."""
        read = tuple(outputs[name] for name in self.outputs)
        return read if len(read) > 1 else read[0]


def compiled_losses(loss: Any, weights: Any, outputs: Iterable[str] | None) -> list[CompiledLoss]:
    """Return the losses of `compile(loss=…, loss_weights=…)` as a list.

    Args:
        loss: a loss, or a list of losses, by output.
        weights: a number, or a list of numbers, by output; 1 where nothing is stated.
        outputs: names of the outputs of the model; None: unknown.

    Raises:
        InputError: another structure, a name that is no output, or two losses with one name.
    """
    for name, value in (("loss", loss), ("loss_weights", weights)):
        if value is not None and not isinstance(value, Mapping):
            raise InputError(
                f"`{name}` must be a dict by output, because the model has several, got "
                f'{value!r:.60}. Write {name}={{"features": …, "logits": …}}.'
            )
    weights = {**(weights or {})}
    losses = []
    for output, value in (loss or {}).items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        listed = [_loss(one) for one in (value if several else [value])]
        factors = weights.pop(output, [1.0] * len(listed))
        factors = factors if isinstance(factors, Sequence) else [factors]
        if len(factors) != len(listed):
            raise InputError(
                f"`loss_weights` must have {len(listed)} numbers for the losses of {output!r}, "
                f"got {len(factors)}. Write one number for each loss."
            )
        for one, factor in zip(listed, factors, strict=True):
            read = getattr(one, "outputs", ()) or (output,)
            losses.append(CompiledLoss(f"{output}_{one.name}", read, one, factor))
    _check(losses, weights, outputs)
    return losses


class _Function(keras.losses.Loss):
    """Loss of a function `(y_true, y_pred)`, or of the name of one."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)


def _loss(value: Any) -> keras.losses.Loss:
    one = keras.losses.get(value)
    return one if isinstance(one, keras.losses.Loss) else _Function(one)


def _check(
    losses: Sequence[CompiledLoss], unused: Mapping[str, Any], outputs: Iterable[str] | None
) -> None:
    read = {name for one in losses for name in one.outputs} | {*unused}
    if outputs is not None and not read <= {*outputs}:
        raise InputError(
            f"`loss` must name outputs of the model, got {sorted(read - {*outputs})}. Its outputs "
            f"are {', '.join(sorted(outputs))}."
        )
    if unused:
        raise InputError(
            f"`loss_weights` must name outputs with a loss, got {sorted(unused)}. Give them a loss."
        )
    names = [one.name for one in losses]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"`loss` must have one loss of each name for an output, got {sorted(twice)} twice. "
            "Pass `name` to one of them."
        )


@keras.saving.register_keras_serializable(package="keras_reid")
class ReidModel(replicas.BuiltByOwnImages, keras.Model):
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
    `outputs`) is listed under the first. Labels are a dict. A loss is compared with the label that
    its `label` names, by default that with the name of the output, else `"identity"`. The same
    holds for metrics. Labels that are an array are the identities. `sample_weight` `(b,)` weighs
    images.

    The logs have `loss`, the weighted sum with the penalties of the weights, `OUTPUT_NAME` for each
    loss without its weight, and for metric losses `OUTPUT_NAME_active`, `…_positive`, `…_negative`
    and `…_norm`, see `keras_reid.losses.MetricLoss.measure`. The model trains with the training
    step of Keras under every backend.

    Raises:
        InputError: in `compile`, a loss without an output or of a name that is no output.
    """

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, loss_weights: Any = None, **options: Any
    ) -> None:
        outputs = self.output if isinstance(self.output, Mapping) else None
        compiled = compiled_losses(loss, loss_weights, outputs)
        super().compile(optimizer, **options)
        self.loss, self.loss_weights = loss, loss_weights
        with replicas.scope(self):
            self._compiled = Compiled(compiled, _logged(compiled))

    def get_compile_config(self) -> dict[str, Any]:
        if not self.compiled:
            return {}
        own = {"loss": self.loss, "loss_weights": self.loss_weights}
        return {**super().get_compile_config(), **keras.saving.serialize_keras_object(own)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            # Layers of outputs without a loss, as in a phase that trains the classifier alone.
            warnings.filterwarnings("ignore", "Gradients do not exist")
            return super().fit(x, y, *args, **with_pair_warning(args, kwargs))

    @property
    def metric_losses(self) -> dict[str, MetricLoss]:
        """Metric losses by name in the logs."""
        return {one.name: one.loss for one in self._compiled.losses if _is_metric(one)}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *(self._compiled.metrics if self.compiled else ())]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        total = 0.0
        for one in self._compiled.losses:
            label = _label(y, one)
            weight = weights_of(sample_weight, one.outputs[0], label)
            total = total + one.weight * self._measured(
                one, y[label] if label else y, y_pred, weight
            )
        # Keras divides losses by the number of replicas, whose gradients are summed.
        return total + (sum(map(ops.sum, self.losses)) / replicas.count() if self.losses else 0.0)

    def _measured(self, one: CompiledLoss, y_true: Any, y_pred: Any, sample_weight: Any) -> Tensor:
        """Return a loss without its weight, and add it and its statistics to the logs."""
        statistics: dict[str, Tensor] = {}
        if isinstance(one.loss, MetricLoss):
            value, statistics = one.loss.measure(y_true, one.of(y_pred), sample_weight)
        else:
            value = one.loss(y_true, one.of(y_pred), sample_weight)
        self._compiled.add(one.name, value * replicas.count())
        for what, seen in statistics.items():
            self._compiled.add(f"{one.name}_{what}", seen)
        return value

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        labels = y
        if isinstance(y_pred, Mapping):  # Keras requires a label for every output
            y = y if isinstance(y, Mapping) else {"identity": y}
            labels = {name: y.get(name, y.get("identity", y_pred[name])) for name in y_pred}
            if isinstance(sample_weight, Mapping):
                sample_weight = {
                    name: weights_of(sample_weight, name, "identity") for name in y_pred
                }
        return replicas.logs(super().compute_metrics(x, labels, y_pred, sample_weight))


# Name under which files of older versions state the class.
keras.saving.get_custom_objects()["keras_reid>NamedOutputs"] = ReidModel


def uncompiled(model: keras.Model) -> keras.Model:
    """Return a model with the same layers that has no optimizer and no losses."""
    if not isinstance(model, ReidModel):
        return model
    return ReidModel(model.input, model.output, name=model.name)


class Compiled:
    """Losses of a compiled model, with a mean over the batches for each entry of the logs.

    Keras tracks the metrics in attributes of a model, but not those in this object: they are
    created again with every `compile`.
    """

    def __init__(self, losses: Sequence[CompiledLoss], names: Iterable[str], **config: Any) -> None:
        self.losses = losses
        self.config = config
        self._means = {name: keras.metrics.Mean(name=name) for name in names}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means."""
        return [*self._means.values()]

    def add(self, name: str, value: Tensor) -> None:
        """Add the value of a batch on this replica."""
        self._means[name].update_state(value)

    def results(self) -> dict[str, Tensor]:
        """Return the means by name."""
        return {name: mean.result() for name, mean in self._means.items()}


def with_pair_warning(args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the keyword arguments of `fit` with a `PairWarning` among the callbacks."""
    callbacks = kwargs.get("callbacks") or []
    if len(args) >= CALLBACKS or not isinstance(callbacks, list):
        return kwargs
    return {**kwargs, "callbacks": [*callbacks, PairWarning()]}


class PairWarning(keras.callbacks.Callback):
    """Warns once if the first batch has no pair of one identity, or none of two.

    The metric losses of such a batch are 0, or have one side only.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch or getattr(self, "checked", False):
            return
        self.checked = True
        for name in self.model.metric_losses:
            sides = ((logs or {}).get(f"{name}_{side}", 0.0) for side in ("positive", "negative"))
            positive, negative = sides
            if (positive == 0) != (negative == 0):
                kind, cause = ("one identity", "K = 1") if positive == 0 else ("two", "P = 1")
                logging.warning(
                    "The first batch has no pair of images of %s (%s), from which the loss %s "
                    "learns. Use batches of P identities with K images each, both at least 2, as "
                    "keras_reid.data.pk_batches returns.",
                    kind,
                    cause,
                    name,
                )
                return


def _logged(losses: Sequence[CompiledLoss]) -> list[str]:
    """Return the names in the logs of losses and of the statistics of metric losses."""
    statistics = [f"{one.name}_{what}" for one in losses if _is_metric(one) for what in STATISTICS]
    return [one.name for one in losses] + statistics


def _is_metric(one: CompiledLoss) -> bool:
    return isinstance(one.loss, MetricLoss)


def _label(y: Any, one: CompiledLoss) -> str | None:
    """Return the key of the label that a loss reads; None for labels that are an array."""
    if not isinstance(y, Mapping):
        return None
    named = getattr(one.loss, "label", None)
    label = named or (one.outputs[0] if one.outputs[0] in y else "identity")
    if label not in y:
        raise InputError(
            f"The labels must contain {label!r} for the loss {one.name}, got {sorted(y)}. Add it "
            "to the batches, or pass `label` to the loss."
        )
    return label


def weights_of(sample_weight: Any, output: str, label: str | None) -> Any:
    """Return the weights of an output: Keras repeats an array of weights for every label."""
    if isinstance(sample_weight, Mapping):
        return sample_weight.get(output, sample_weight.get(label))
    return sample_weight
