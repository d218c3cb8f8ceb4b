"""Phases before the main one: on small images, and of the identity loss alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_reid.errors import InputError
from keras_reid.training.methods.method import Method, Phase, setting


@dataclass(frozen=True, kw_only=True)
class Pretraining(Method):
    """Epochs on small images, then of the identity loss alone, then those of the recipe."""

    small_epochs: int = setting(
        "Epochs on smaller images, before all others; with half the height and width an epoch "
        "takes a quarter of the time.",
        least=0,
        default=0,
    )
    small_scale: float = setting(
        "Ratio of the sides of smaller images to those of the recipe.",
        interval="(0, 1)",
        default=0.5,
    )
    pretrain_epochs: int = setting(
        "Epochs of the identity loss alone, before those of the weights above.", least=0, default=0
    )

    @property
    def active(self) -> bool:
        return bool(self.small_epochs or self.pretrain_epochs)

    def check(self, settings: Mapping[str, Any]) -> None:
        height, width = self._small(settings)
        if self.small_epochs and (settings["teacher"] or min(height, width) < 1):
            raise InputError(
                "`small_epochs` requires small images of at least 1×1 pixels and no teacher, got "
                f"{height}×{width} pixels and teacher={settings['teacher']!r}.",
                "small_epochs",
            )

    def _small(self, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Return the height and width of small images."""
        return tuple(round(settings[name] * self.small_scale) for name in ("height", "width"))

    def phases(self, phases: list[Phase], settings: Mapping[str, Any]) -> list[Phase]:
        before = []
        if self.small_epochs:
            height, width = self._small(settings)
            changes = {"epochs": self.small_epochs, "height": height, "width": width}
            before.append(Phase(changes))
        if self.pretrain_epochs:
            alone = {"metric_weight": 0.0, "local_weight": 0.0, "identity_weight": 1.0}
            before.append(Phase({"epochs": self.pretrain_epochs, **alone}))
        return before + phases
