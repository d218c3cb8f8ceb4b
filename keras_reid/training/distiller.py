"""Distillation of one trained model into another."""

from typing import Any

import keras

from keras_reid.models import ReidModel
from keras_reid.training.mutual import MutualLearner


@keras.saving.register_keras_serializable(package="keras_reid")
class Distiller(MutualLearner):
    """`own losses + Σ weight · distillation(teacher, student)`: a student of one frozen teacher.

    (Hinton et al., arXiv:1503.02531.) A `MutualLearner` with one edge: the teacher runs in
    inference mode and is not changed. The logs are those of a `ReidModel`, and `OUTPUT_LOSS` for
    each distillation. The trained model is `distiller.student`.

    >>> import numpy as np
    >>> from keras_reid import losses
    >>> def classifier():
    ...     features = keras.Input((3,))
    ...     return keras.Model(features, {"logits": keras.layers.Dense(2)(features)})
    >>> distiller = Distiller(teacher=classifier(), student=classifier())
    >>> own = {"logits": losses.IdentityLoss()}
    >>> distilled = {"logits": losses.LogitDistillationLoss(temperature=4.0)}
    >>> distiller.compile("adam", own, distillation_loss=distilled, run_eagerly=True)
    >>> logs = distiller.train_on_batch(np.eye(3), np.array([0, 1, 1]), return_dict=True)
    >>> sorted(logs)
    ['logits_identity', 'logits_logit_distillation', 'loss']

    Args:
        teacher: trained model.
        student: model to train, for images of the same size.
        ramp_up: number of steps of the linear increase of the distillation weights.

    Raises:
        InputError: as `MutualLearner`.
    """

    def __init__(
        self, teacher: keras.Model, student: keras.Model, ramp_up: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(
            {"student": student}, teachers={"teacher": teacher}, ramp_up=ramp_up, **kwargs
        )

    @property
    def student(self) -> ReidModel:
        """Model that is trained."""
        return self.members["student"]

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.student(images, training=training)

    def _log(self, member: str, name: str) -> str:
        return name

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config["teachers"], **config["members"], "ramp_up": self.ramp_up}
