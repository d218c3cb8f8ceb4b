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
        "Epochs on images of half the height and width, before all others, which cost a quarter.",
        partial(checks.at_least, 0),
        default=0,
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
        if self.small_epochs and (teacher or min(recipe.image_size) < 2):
            raise InputError(
                "images of half the size have at least a pixel, and no teacher, which sees the same"
                f" images: received small_epochs={self.small_epochs} with {recipe.height}×"
                f"{recipe.width} pixels and teacher={teacher!r}; leave one out"
            )

    def phases(self, phases: list[Phase]) -> list[Phase]:
        main = phases[0].recipe
        before = []
        if self.small_epochs:
            height, width = main.height // 2, main.width // 2
            before.append(Phase(main.replace(epochs=self.small_epochs, height=height, width=width)))
        if self.pretrain:
            alone = {"metric_weight": 0.0, "local_weight": 0.0, "identity_weight": 1.0}
            before.append(Phase(main.replace(epochs=self.pretrain, **alone)))
        return before + phases
