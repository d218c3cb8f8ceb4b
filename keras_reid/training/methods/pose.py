"""Parts where the body points are (Wang et al., HOReID, CVPR 2020, arXiv:2003.08177)."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from keras_reid import checks, losses, models, training
from keras_reid.errors import InputError
from keras_reid.skeletons import KEYPOINTS
from keras_reid.training.methods.method import Annotations, Method, setting

if TYPE_CHECKING:
    from keras_reid.models.heads import Head
    from keras_reid.training.objective import LossTerm
    from keras_reid.training.recipes import Recipe


@dataclass(frozen=True, kw_only=True)
class Pose(Method):
    """`pose_weight · identity_weight · Σ c CE(part logits)`, c the visibility of a part."""

    columns: ClassVar[tuple[str, ...]] = (KEYPOINTS,)
    embeds: ClassVar[bool] = True
    pose: bool = setting("Parts where the body points are (HOReID).", default=False)
    pose_width: int = setting("Width of such a part.", partial(checks.at_least, 1), default=256)
    pose_weight: float = setting(
        "Weight of the identity loss of all these parts.", partial(checks.at_least, 0), default=1.0
    )

    @property
    def active(self) -> bool:
        return self.pose

    def heads(self, annotations: Annotations) -> "list[Head]":
        if not annotations.keypoints:
            raise InputError("pose needs body points of the images: give keypoints", KEYPOINTS)
        return [models.heads.PoseHead(annotations.keypoints, self.pose_width)]

    def terms(
        self, terms: "list[LossTerm]", recipe: "Recipe", annotations: Annotations
    ) -> "list[LossTerm]":
        loss = losses.VisibleIdentityLoss(recipe.smoothing)
        weight = self.pose_weight * recipe.identity_weight
        return [
            *terms,
            training.LossTerm("pose", loss, ("part_logits", "visibility"), weight=weight),
        ]
