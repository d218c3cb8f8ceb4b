"""Learning rates over the steps of a training."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks


@keras.saving.register_keras_serializable(package="keras_reid")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """`schedule(t) · min(1, (t + 1) / steps)`: a linear rise into any other schedule."""

    def __init__(
        self, schedule: keras.optimizers.schedules.LearningRateSchedule, steps: int
    ) -> None:
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        fraction = (ops.cast(step, "float32") + 1.0) / max(self.steps, 1)
        return self.schedule(step) * ops.minimum(fraction, 1.0)

    def get_config(self) -> dict[str, Any]:
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["steps"])


def schedule(
    kind: str, learning_rate: float, steps: int, warmup: int = 0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A schedule by name, after a linear warm-up.

    Args:
        kind: `"cosine"` (half a cosine to 0), `"step"` (×0.1 at 4/7 and again at 6/7 of the steps,
            as 40 and 70 of 120 epochs are commonly rounded) or `"constant"`.
        learning_rate: the highest value.
        steps: the length of the training.
        warmup: how many of them rise linearly from nearly 0.
    """
    known = {
        "constant": lambda: keras.optimizers.schedules.PiecewiseConstantDecay(
            [steps], [learning_rate, learning_rate]
        ),
        "cosine": lambda: keras.optimizers.schedules.CosineDecay(learning_rate, steps),
        "step": lambda: keras.optimizers.schedules.PiecewiseConstantDecay(
            [steps * 4 // 7, steps * 6 // 7],
            [learning_rate, learning_rate * 0.1, learning_rate * 0.01],
        ),
    }
    checks.one_of(known, schedule=kind)
    return WarmUp(known[kind](), warmup)
