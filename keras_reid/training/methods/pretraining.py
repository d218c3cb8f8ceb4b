"""Phases before the main phase: on small images, and with only the identity loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_reid.training.methods.method import Method, Phase, setting


@dataclass(frozen=True, kw_only=True)
class Pretraining(Method):
    """Epochs on small images, then with only the identity loss, then the epochs of the recipe."""

    small_epochs: int = setting(
        "Number of epochs on smaller images, before all other epochs; 0: none. An epoch on images "
        "of half the height and width takes a quarter of the time.",
        least=0,
        default=0,
    )
    small_scale: float = setting(
        "Ratio of the sides of smaller images to those of the recipe.",
        interval="(0, 1)",
        default=0.5,
    )
    pretrain_epochs: int = setting(
        "Number of epochs with only the identity loss, after those on small images and before the "
        "others; 0: none.",
        least=0,
        default=0,
    )

    @property
    def active(self) -> bool:
        return bool(self.small_epochs or self.pretrain_epochs)

    @property
    def fixed(self) -> Mapping[str, Any]:
        return {"teacher": ""} if self.small_epochs else {}

    def phases(self, phases: list[Phase], settings: Mapping[str, Any]) -> list[Phase]:
        before = []
        if self.small_epochs:
            sides = {side: round(settings[side] * self.small_scale) for side in ("height", "width")}
            before.append(Phase({"epochs": self.small_epochs, **sides}))
        if self.pretrain_epochs:
            alone = {"metric_weight": 0.0, "local_weight": 0.0, "identity_weight": 1.0}
            before.append(Phase({"epochs": self.pretrain_epochs, **alone}))
        return before + phases
