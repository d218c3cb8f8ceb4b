"""Training one model for an objective, in a custom `train_step`."""

from typing import Any

import keras
import tensorflow as tf

from keras_reid.losses import FACTS, MetricLoss
from keras_reid.training.objective import Objective


@keras.saving.register_keras_serializable(package="keras_reid")
class Learner(keras.Model):
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
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.term_trackers = {
            term.name: keras.metrics.Mean(name=term.name) for term in objective.terms
        }
        self.fact_trackers = {
            f"{term.name}_{fact}": keras.metrics.Mean(name=f"{term.name}_{fact}")
            for term in objective.terms
            if isinstance(term.loss, MetricLoss)
            for fact in FACTS
        }
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self.loss_tracker, *self.term_trackers.values(), *self.fact_trackers.values()]

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.model(images, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels = keras.utils.unpack_x_y_sample_weight(data)[:2]
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            values = self.objective(labels, outputs)
            loss = self.objective.total(values) + self._regularization()
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        if not self.optimizer.built:
            self.optimizer.build(variables)
        # An output that no term reads has no gradient, and is left as it is.
        gradients = zip(tape.gradient(scaled, variables), variables, strict=True)
        self.optimizer.apply_gradients([pair for pair in gradients if pair[0] is not None])
        return self._track(loss, values, self.objective.explain(labels, outputs))

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels = keras.utils.unpack_x_y_sample_weight(data)[:2]
        outputs = self.model(images, training=False)
        values = self.objective(labels, outputs)
        loss = self.objective.total(values) + self._regularization()
        return self._track(loss, values, self.objective.explain(labels, outputs))

    def get_config(self) -> dict[str, Any]:
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "objective": keras.saving.serialize_keras_object(self.objective),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Learner":
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})

    def _regularization(self) -> Any:
        # Keras divides a (b,) loss by the number of replicas, because their gradients are added
        # up; the weights' own penalties must be divided likewise.
        return sum(self.model.losses) / self._replicas() if self.model.losses else 0.0

    def _track(self, loss: Any, values: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        self.loss_tracker.update_state(loss * self._replicas())
        for name, value in values.items():
            self.term_trackers[name].update_state(value * self._replicas())
        for name, value in facts.items():
            self.fact_trackers[name].update_state(value)
        return {metric.name: metric.result() for metric in self.metrics}

    @staticmethod
    def _replicas() -> int:
        return tf.distribute.get_strategy().num_replicas_in_sync
