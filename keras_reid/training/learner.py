"""Training one model for an objective, in a custom `train_step`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.losses import STATISTICS, MetricLoss
from keras_reid.training.objective import Objective
from keras_reid.training.output_metrics import Given, OutputMetrics, refuse_losses

Optimized = list[tuple[keras.optimizers.Optimizer, list[Any]]]


class Resumable(keras.Model):
    """A model that saves the states of its seeds too, which Keras leaves out.

    Without them a training with dropout that goes on from a file draws its first noise again.
    """

    def save_own_variables(self, store: Any) -> None:
        for number, seed in enumerate(self._seeds()):
            store[str(number)] = seed.numpy()

    def load_own_variables(self, store: Any) -> None:
        for number, seed in enumerate(self._seeds()):
            seed.assign(store[str(number)])

    def _seeds(self) -> list[Any]:
        others = {id(variable) for variable in (*self.weights, *self.metrics_variables)}
        return [variable for variable in self.variables if id(variable) not in others]


@keras.saving.register_keras_serializable(package="keras_reid")
class Learner(Resumable):
    """`model` trained for `objective` by `compile(optimizer)` and `fit(batches)`.

    Batches are `(images, labels)` with a dict of labels, as `keras_reid.data.pk_batches` yields
    them, or `(images, labels, sample_weight)` with a weight `(b,)` for each image, by which every
    term multiplies what the image costs. The history has `loss` (the weighted sum), one entry for
    each term of the objective and, of a term NAME with a metric loss, what `MetricLoss.explain`
    says: `NAME_active`, `NAME_positive`, `NAME_negative` and `NAME_norm`.
    The trained model is `learner.model`; it needs nothing of this class.

    Args:
        model: outputs a dict, see `keras_reid.models.build`.
        objective: terms over these outputs.
    """

    def __init__(self, model: keras.Model, objective: Objective, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.objective = objective
        self.trackers = {name: keras.metrics.Mean(name=name) for name in logged(objective)}
        self.output_metrics = OutputMetrics(None, objective)
        self.built = True

    def compile(
        self, optimizer: Any = "adam", loss: None = None, *, metrics: Given = None, **options: Any
    ) -> None:
        """As `keras.Model.compile`, but that the objective stands for the losses.

        Args:
            optimizer: of the model's weights.
            metrics: by the names of outputs, such as `{"logits": "accuracy"}`; see
                `keras_reid.training.OutputMetrics`.
            options: run_eagerly, jit_compile, steps_per_execution or auto_scale_loss.

        Raises:
            InputError: losses, or metrics that do not say of which output they are.
        """
        refuse_losses({**options, "loss": loss})
        self.output_metrics = OutputMetrics(metrics, self.objective)
        super().compile(optimizer=optimizer, **options)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*self.trackers.values(), *self.output_metrics.all]

    @property
    def metric_losses(self) -> dict[str, MetricLoss]:
        """The metric losses by their names in the logs."""
        return metric_losses(self.objective)

    @property
    def optimized(self) -> Optimized:
        """The optimizer and what it trains."""
        return [(self.optimizer, self.model.trainable_variables)]

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.model(images, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels, weights = unpacked(data)
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            values = self.objective(labels, outputs, weights)
            loss = self.objective.total(values) + penalties(self.model)
            scaled = self.optimizer.scale_loss(loss)
        descend(self.optimizer, tape, scaled, self.model)
        return self._track(loss, values, labels, outputs)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels, weights = unpacked(data)
        outputs = self.model(images, training=False)
        values = self.objective(labels, outputs, weights)
        loss = self.objective.total(values) + penalties(self.model)
        return self._track(loss, values, labels, outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "objective": keras.saving.serialize_keras_object(self.objective),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Learner":
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def get_compile_config(self) -> dict[str, Any]:
        metrics = keras.saving.serialize_keras_object(self.output_metrics.by_output)
        return {**super().get_compile_config(), "metrics": metrics}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.model.trainable_variables)

    def _track(
        self, loss: Any, values: dict[str, Any], labels: Any, outputs: Any
    ) -> dict[str, Any]:
        measured = self.output_metrics.update(labels, outputs)
        statistics = self.objective.explain(labels, outputs)
        return {**track(self.trackers, {"loss": loss, **values}, statistics), **measured}


# --- What a learner of one model shares with one of several


def logged(objective: Objective, distillation: Sequence[str] = ()) -> list[str]:
    """The names in the logs: the sum, the terms, what metric losses see, what is distilled."""
    statistics = [
        f"{name}_{statistic}" for name in metric_losses(objective) for statistic in STATISTICS
    ]
    return ["loss", *(term.name for term in objective.terms), *distillation, *statistics]


def metric_losses(objective: Objective) -> dict[str, MetricLoss]:
    """The metric losses of an objective by the names of their terms."""
    return {term.name: term.loss for term in objective.terms if isinstance(term.loss, MetricLoss)}


def unpacked(data: Any) -> tuple[Any, Any, Any]:
    """Images, labels and sample weights `(b,)` or None.

    Raises:
        InputError: weights by output or label.
    """
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if weights is not None and (keras.tree.is_nested(weights) or len(weights.shape) != 1):
        raise InputError(
            "sample_weight has one number (b,) for each image, by which all terms weigh it: "
            f"received {keras.tree.map_structure(lambda w: tuple(w.shape), weights)}; weigh terms "
            "by LossTerm(weight=…)"
        )
    return images, labels, weights


def penalties(model: keras.Model) -> Any:
    """The weights' own losses, for one replica.

    Keras divides a (b,) loss by the number of replicas, because their gradients are added up;
    these must be divided likewise.
    """
    return sum(model.losses) / _replicas() if model.losses else 0.0


def descend(optimizer: Any, tape: tf.GradientTape, loss: Any, model: keras.Model) -> None:
    """One step of the model down the slope of the (scaled) loss."""
    variables = model.trainable_variables
    if not optimizer.built:
        optimizer.build(variables)
    # An output that no term reads has no gradient, and is left as it is.
    gradients = zip(tape.gradient(loss, variables), variables, strict=True)
    optimizer.apply_gradients([pair for pair in gradients if pair[0] is not None])


def track(
    trackers: dict[str, keras.metrics.Mean], losses: dict[str, Any], statistics: dict[str, Any]
) -> dict[str, Any]:
    """Adds the losses, which are those of one replica, and the statistics of a step to the logs."""
    for name, value in losses.items():
        trackers[name].update_state(value * _replicas())
    for name, value in statistics.items():
        trackers[name].update_state(value)
    return {name: tracker.result() for name, tracker in trackers.items()}


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync
