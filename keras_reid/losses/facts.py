"""What a metric loss sees, as Keras metrics for a plain `fit`."""

from typing import Any

import keras

from keras_reid.errors import InputError
from keras_reid.losses.base import FACTS, MetricLoss

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_reid")
class LossFact(keras.metrics.Mean):
    """The mean over the batches of one fact of `MetricLoss.explain`.

    Args:
        loss: a metric loss.
        fact: `"active"`, `"positive"`, `"negative"` or `"norm"`.

    Raises:
        InputError: if the fact is unknown.
    """

    def __init__(
        self, loss: MetricLoss, fact: str, name: str | None = None, dtype: str | None = None
    ) -> None:
        if fact not in FACTS:
            raise InputError(f"A fact is one of {', '.join(FACTS)}, but {fact!r} was given.")
        super().__init__(name=name or fact, dtype=dtype)
        self.loss = loss
        self.fact = fact

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> Any:
        return super().update_state(self.loss.explain(y_true, y_pred)[self.fact])

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "fact": self.fact}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LossFact":
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def facts(loss: MetricLoss) -> list[LossFact]:
    """All facts of a loss: `model.compile("adam", loss, metrics=facts(loss))`."""
    return [LossFact(loss, fact) for fact in FACTS]
