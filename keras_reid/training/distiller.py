"""One student of one frozen teacher."""

from typing import Any

import keras

from keras_reid.losses import DistillationLoss
from keras_reid.training.mutual import MutualLearner
from keras_reid.training.objective import Objective


@keras.saving.register_keras_serializable(package="keras_reid")
class Distiller(MutualLearner):
    """`objective + Σ weight · distill(teacher, student)`: a student of one frozen teacher.

    (Hinton et al., arXiv:1503.02531.) The teacher runs in inference mode and is not changed. The
    logs are those of a `Learner`, and one entry for each term of the distillation. The trained
    model is `distiller.model`.

    Args:
        teacher, student: models of `keras_reid.models.build` for images of the same size.
        objective, distillation, ramp_up: see `MutualLearner`.

    Raises:
        InputError: as `MutualLearner`.
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        objective: Objective,
        distillation: Objective | DistillationLoss,
        ramp_up: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            {"student": student},
            objective,
            distillation,
            teachers={"teacher": teacher},
            ramp_up=ramp_up,
            **kwargs,
        )

    @property
    def model(self) -> keras.Model:
        """The student."""
        return self.members["student"]

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.model(images, training=training)

    def _log(self, member: str, name: str) -> str:
        return name

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            "teacher": config["teachers"]["teacher"],
            "student": config["members"]["student"],
            **{name: config[name] for name in ("objective", "distillation", "ramp_up")},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Distiller":
        load = keras.saving.deserialize_keras_object
        names = ("teacher", "student", "objective", "distillation")
        return cls(**{**config, **{name: load(config[name]) for name in names}})
