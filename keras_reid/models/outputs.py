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
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return super().compute_metrics(x, _labels(y, y_pred, y_pred), y_pred, sample_weight)


def _labels(y: Any, y_pred: Any, outputs: Iterable[str]) -> Any:
    """A label for each of the outputs: for one without any, which has no metric, itself."""
    if not isinstance(y, Mapping) or not isinstance(y_pred, Mapping):
        return y
    return {name: y.get(name, y.get("identity", y_pred.get(name))) for name in outputs}
