"""Learning-rate schedules."""

from typing import Any

import keras
from keras import ops

from keras_reid import checks


@keras.saving.register_keras_serializable(package="keras_reid")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """`schedule(t) · min(1, (t + 1) / steps)`: linear warm-up of any other schedule.

    >>> rate = WarmUp(keras.optimizers.schedules.CosineDecay(0.1, 1_000_000), steps=4)
    >>> [round(float(rate(step)), 3) for step in range(5)]
    [0.025, 0.05, 0.075, 0.1, 0.1]

    Args:
        schedule: schedule of the learning rate after the warm-up.
        steps: number of steps of the warm-up; 0: none.
    """

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
    """Return a schedule by name, after a linear warm-up.

    >>> rate = schedule("step", 0.1, steps=70, warmup=10)
    >>> [round(float(rate(step)), 4) for step in (0, 9, 30, 50, 69)]
    [0.01, 0.1, 0.1, 0.01, 0.001]

    Args:
        kind: `"cosine"` (half a cosine to 0), `"step"` (×0.1 at 4/7 and at 6/7 of the steps, as 40
            and 70 of 120 epochs are commonly rounded) or `"constant"`.
        learning_rate: the highest value.
        steps: number of steps of the training run.
        warmup: number of steps of linear warm-up.

    Returns:
        A `WarmUp` of a schedule of Keras, which both can be serialized.

    Raises:
        InputError: an unknown kind.
    """
    checks.one_of(("constant", "cosine", "step"), schedule=kind)
    if kind == "cosine":
        return WarmUp(keras.optimizers.schedules.CosineDecay(learning_rate, steps), warmup)
    decay = 0.1 if kind == "step" else 1.0
    ends = [steps * 4 // 7, steps * 6 // 7]
    rates = [learning_rate * decay**number for number in range(3)]
    return WarmUp(keras.optimizers.schedules.PiecewiseConstantDecay(ends, rates), warmup)
