"""Training one model for an objective, in a custom `train_step`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_reid.losses import FACTS, MetricLoss
from keras_reid.training.objective import Objective

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
    them. The history has `loss` (the weighted sum), one entry for each term of the objective and,
    of a term NAME with a metric loss, what `MetricLoss.explain` says: `NAME_active`,
    `NAME_positive`, `NAME_negative` and `NAME_norm`.
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
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.trackers.values())

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
        images, labels = keras.utils.unpack_x_y_sample_weight(data)[:2]
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            values = self.objective(labels, outputs)
            loss = self.objective.total(values) + penalties(self.model)
            scaled = self.optimizer.scale_loss(loss)
        descend(self.optimizer, tape, scaled, self.model)
        return self._track(loss, values, self.objective.explain(labels, outputs))

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = keras.utils.unpack_x_y_sample_weight(data)[:2]
        outputs = self.model(images, training=False)
        values = self.objective(labels, outputs)
        loss = self.objective.total(values) + penalties(self.model)
        return self._track(loss, values, self.objective.explain(labels, outputs))

    def get_config(self) -> dict[str, Any]:
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "objective": keras.saving.serialize_keras_object(self.objective),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Learner":
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def _track(self, loss: Any, values: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        return track(self.trackers, {"loss": loss, **values}, facts)


# --- What a learner of one model shares with one of several


def logged(objective: Objective, imitation: Sequence[str] = ()) -> list[str]:
    """The names in the logs: the sum, the terms, what metric losses see, what is imitated."""
    facts = [f"{name}_{fact}" for name in metric_losses(objective) for fact in FACTS]
    return ["loss", *(term.name for term in objective.terms), *imitation, *facts]


def metric_losses(objective: Objective) -> dict[str, MetricLoss]:
    """The metric losses of an objective by the names of their terms."""
    return {term.name: term.loss for term in objective.terms if isinstance(term.loss, MetricLoss)}


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
    trackers: dict[str, keras.metrics.Mean], losses: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """Adds the losses, which are those of one replica, and the facts of a step to the logs."""
    for name, value in losses.items():
        trackers[name].update_state(value * _replicas())
    for name, value in facts.items():
        trackers[name].update_state(value)
    return {name: tracker.result() for name, tracker in trackers.items()}


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync
