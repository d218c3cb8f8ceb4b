"""Parts where the body points are (Wang et al., HOReID, CVPR 2020, arXiv:2003.08177)."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from keras_reid import checks, models
from keras_reid.errors import InputError
from keras_reid.skeletons import KEYPOINTS
from keras_reid.training.methods.method import (
    Annotations,
    LossSettings,
    Method,
    WeightedLoss,
    setting,
)

if TYPE_CHECKING:
    from keras_reid.models.heads import Head


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

    def losses(
        self, losses: list[WeightedLoss], settings: LossSettings, annotations: Annotations
    ) -> list[WeightedLoss]:
        from keras_reid.losses import VisibleIdentityLoss

        loss = VisibleIdentityLoss(settings.label_smoothing)
        weight = self.pose_weight * settings.identity_weight
        return [*losses, WeightedLoss("part_logits", loss, weight)]
