"""Clips of tracklets (Gao and Nevatia, arXiv:1805.02104)."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from keras_reid import checks, models, training
from keras_reid.errors import InputError
from keras_reid.layers.registry import TEMPORAL
from keras_reid.training.methods.method import Annotations, Method, setting

if TYPE_CHECKING:
    import keras

    from keras_reid.training.objective import LossTerm
    from keras_reid.training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Tracklets(Method):
    """The terms of clips, and `frame_weight` times the same of their single frames."""

    columns: ClassVar[tuple[str, ...]] = ("tracklet",)
    embeds: ClassVar[bool] = True
    temporal: str = setting(
        f"How the frames of a tracklet are pooled: {', '.join(TEMPORAL)}; empty: images, "
        "no tracklets.",
        default="",
    )
    frames: int = setting(
        "Frames of a clip of a tracklet, of which a batch has P x K.",
        partial(checks.at_least, 1),
        default=4,
    )
    frame_weight: float = setting(
        "Weight of the losses of single frames beside those of clips; 0: none.",
        partial(checks.at_least, 0),
        default=1.0,
    )

    @property
    def active(self) -> bool:
        return bool(self.temporal)

    def check(self, recipe: "Recipe") -> None:
        checks.one_of(TEMPORAL, temporal=self.temporal)
        if recipe.stripes.active or recipe.distillation.several or recipe.distillation.active:
            raise InputError(
                "tracklets are learned by one model without stripes, parts, pose and attributes: "
                f"received temporal={self.temporal!r} beside them"
            )

    def model(
        self, recipe: "Recipe", num_identities: int | None, **common: Any
    ) -> "keras.Model | None":
        return models.build_tracklet(
            recipe.backbone, num_identities, recipe.image_size, temporal=self.temporal, **common
        )

    def terms(
        self, terms: "list[LossTerm]", recipe: "Recipe", annotations: Annotations
    ) -> "list[LossTerm]":
        of_frames = [
            training.LossTerm(
                f"frame_{term.name}",
                term.loss,
                f"frame_{term.output}",
                "frame_identity",
                self.frame_weight * term.weight,
            )
            for term in terms
        ]
        return terms + of_frames
