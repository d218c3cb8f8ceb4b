"""Statistics of a metric loss as a Keras metric for a plain `fit`."""

from typing import Any

import keras

from keras_reid.losses.base import STATISTICS, MetricLoss

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class BatchStatistics(keras.metrics.Metric):
    """Metric: the statistics of `MetricLoss.measure`, averaged over the batches.

    `model.compile("adam", loss, metrics=[BatchStatistics(loss)])` logs `active`, `positive`,
    `negative` and `norm`. The distances of a batch are computed once for all four.

    Args:
        loss: a metric loss.
        prefix: prefix of the names in the logs, such as `"features_"`, to measure several outputs.

    Example:
        >>> import numpy as np
        >>> from keras_reid.losses import TripletHardLoss
        >>> metric = BatchStatistics(TripletHardLoss(margin=1.0))
        >>> metric.update_state([0, 0, 1, 1], np.array([[0.0], [3.0], [4.0], [9.0]]))
        >>> {name: float(value) for name, value in metric.result().items()}
        {'active': 0.5, 'positive': 4.0, 'negative': 5.0, 'norm': 4.0}
    """

    def __init__(
        self,
        loss: MetricLoss,
        prefix: str = "",
        name: str = "batch_statistics",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.loss = loss
        self.prefix = prefix
        self.means = {name: keras.metrics.Mean(name=name, dtype=dtype) for name in STATISTICS}

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        _, statistics = self.loss.measure(y_true, y_pred)
        for name, value in statistics.items():
            self.means[name].update_state(value)

    def result(self) -> dict[str, Tensor]:
        return {self.prefix + name: mean.result() for name, mean in self.means.items()}

    def reset_state(self) -> None:
        for mean in self.means.values():
            mean.reset_state()

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "prefix": self.prefix}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BatchStatistics":
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})
