"""One student of one frozen teacher."""

from typing import Any

import keras

from keras_reid.losses import DistillationLoss
from keras_reid.training.learner import Learner
from keras_reid.training.objective import Objective, joint


@keras.saving.register_keras_serializable(package="keras_reid")
class Distiller(Learner):
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
            student,
            objective,
            teachers={"teacher": teacher},
            edges=[("teacher", "model")],
            distillation=joint(distillation),
            ramp_up=ramp_up,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        save = keras.saving.serialize_keras_object
        return {
            "teacher": save(self.teachers["teacher"]),
            "student": save(self.model),
            "objective": save(self.objective),
            "distillation": save(self.distillation),
            "ramp_up": self.ramp_up,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Distiller":
        load = keras.saving.deserialize_keras_object
        names = ("teacher", "student", "objective", "distillation")
        return cls(**{**config, **{name: load(config[name]) for name in names}})
