"""Phases before the main one: on small images, and of the identity loss alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.training.methods.method import Method, Phase, setting


@dataclass(frozen=True, kw_only=True)
class Pretraining(Method):
    """Epochs on small images, then of the identity loss alone, then those of the recipe."""

    small_epochs: int = setting(
        "Epochs on smaller images, before all others; those of half the height and width cost a "
        "quarter.",
        partial(checks.at_least, 0),
        default=0,
    )
    small_scale: float = setting(
        "Of the sides of these smaller images, to those of the recipe.",
        partial(checks.within, "(0, 1)", "a factor"),
        default=0.5,
    )
    pretrain_epochs: int = setting(
        "Epochs of the identity loss alone, before those of the weights above.",
        partial(checks.at_least, 0),
        default=0,
    )

    @property
    def active(self) -> bool:
        return bool(self.small_epochs or self.pretrain_epochs)

    def check(self, settings: Mapping[str, Any]) -> None:
        height, width, teacher = (settings[name] for name in ("height", "width", "teacher"))
        if self.small_epochs and (teacher or min(self._small(settings)) < 1):
            raise InputError(
                "smaller images have at least a pixel, and no teacher, which sees the same images: "
                f"received small_epochs={self.small_epochs} with {height}×{width} "
                f"pixels, small_scale={self.small_scale:g} and teacher={teacher!r}; leave one out"
            )

    def _small(self, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Return height and width of the smaller images."""
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
