"""What a metric loss sees of a batch, as Keras metrics for a plain `fit`."""

from typing import Any

import keras

from keras_reid.errors import InputError
from keras_reid.losses.base import STATISTICS, MetricLoss

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class BatchStatistic(keras.metrics.Mean):
    """The mean over the batches of one statistic of `MetricLoss.explain`.

    Args:
        loss: a metric loss.
        statistic: `"active"`, `"positive"`, `"negative"` or `"norm"`.

    Raises:
        InputError: if the statistic is unknown.
    """

    def __init__(
        self, loss: MetricLoss, statistic: str, name: str | None = None, dtype: str | None = None
    ) -> None:
        if statistic not in STATISTICS:
            raise InputError(
                f"A batch statistic is one of {', '.join(STATISTICS)}, but {statistic!r} was given."
            )
        super().__init__(name=name or statistic, dtype=dtype)
        self.loss = loss
        self.statistic = statistic

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> Any:
        return super().update_state(self.loss.explain(y_true, y_pred)[self.statistic])

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "statistic": self.statistic}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "BatchStatistic":
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def batch_statistics(loss: MetricLoss) -> list[BatchStatistic]:
    """All of a loss: `model.compile("adam", loss, metrics=batch_statistics(loss))`."""
    return [BatchStatistic(loss, statistic) for statistic in STATISTICS]
