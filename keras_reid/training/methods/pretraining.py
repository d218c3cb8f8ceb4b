"""Phases before the main one: on small images, and of the identity loss alone."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.training.methods.method import Method, Phase, setting

if TYPE_CHECKING:
    from keras_reid.training.recipes import Recipe


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
    pretrain: int = setting(
        "Epochs of the identity loss alone, before those of the weights above.",
        partial(checks.at_least, 0),
        default=0,
    )

    @property
    def active(self) -> bool:
        return bool(self.small_epochs or self.pretrain)

    def check(self, recipe: "Recipe") -> None:
        teacher = recipe.distillation.teacher
        if self.small_epochs and (teacher or min(self._small(recipe)) < 1):
            raise InputError(
                "smaller images have at least a pixel, and no teacher, which sees the same images: "
                f"received small_epochs={self.small_epochs} with {recipe.height}×{recipe.width} "
                f"pixels, small_scale={self.small_scale:g} and teacher={teacher!r}; leave one out"
            )

    def _small(self, recipe: "Recipe") -> tuple[int, int]:
        """Height and width of the smaller images."""
        return round(recipe.height * self.small_scale), round(recipe.width * self.small_scale)

    def phases(self, phases: list[Phase]) -> list[Phase]:
        main = phases[0].recipe
        before = []
        if self.small_epochs:
            height, width = self._small(main)
            before.append(Phase(main.replace(epochs=self.small_epochs, height=height, width=width)))
        if self.pretrain:
            alone = {"metric_weight": 0.0, "local_weight": 0.0, "identity_weight": 1.0}
            before.append(Phase(main.replace(epochs=self.pretrain, **alone)))
        return before + phases
