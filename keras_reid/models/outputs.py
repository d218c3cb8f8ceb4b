"""A model of several named outputs that also trains in a plain `compile` and `fit`."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_reid")
class NamedOutputs(keras.Model):
    """A functional model with a dict of outputs, of which some have a loss or a metric.

        model = keras_reid.models.build("tiny", 500, (64, 32), weights="none")
        model.compile("adam", loss={"features": TripletHardLoss(), "logits": IdentityLoss()},
                      metrics={"logits": "accuracy"})
        model.fit(keras_reid.data.pk_batches(images, image_size=(64, 32)), …)

    Keras asks for a label of every output as soon as one has a metric, and for no other label. Here
    an output is compared with the label of its name, or else with the label `identity`.
    """

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        if isinstance(self.loss, Mapping):
            y = _labels(y, y_pred, self.loss)
            sample_weight = _weights(sample_weight, self.loss)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        sample_weight = _weights(sample_weight, y_pred)
        return super().compute_metrics(x, _labels(y, y_pred, y_pred), y_pred, sample_weight)


def _labels(y: Any, y_pred: Any, outputs: Iterable[str]) -> Any:
    """A label for each of the outputs: for one without any, which has no metric, itself."""
    if not isinstance(y, Mapping) or not isinstance(y_pred, Mapping):
        return y
    return {name: y.get(name, y.get("identity", y_pred.get(name))) for name in outputs}


def _weights(sample_weight: Any, outputs: Iterable[str]) -> Any:
    """Weights for each of the outputs, of weights that Keras has repeated for each label."""
    if not isinstance(sample_weight, Mapping):
        return sample_weight
    return {name: sample_weight.get(name, sample_weight.get("identity")) for name in outputs}
