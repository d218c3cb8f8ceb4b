"""Parts around body points (Wang et al., HOReID, CVPR 2020, arXiv:2003.08177)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from keras_reid import models
from keras_reid.skeletons import KEYPOINTS
from keras_reid.training.methods.method import Annotations, LossSettings, Method, Term, setting

if TYPE_CHECKING:
    from keras_reid.models.heads import Head


@dataclass(frozen=True, kw_only=True)
class Pose(Method):
    """`pose_weight · identity_weight · Σ c CE(part logits)`, c the visibility of a part."""

    columns: ClassVar[tuple[str, ...]] = (KEYPOINTS,)
    embeds: ClassVar[bool] = True
    pose: bool = setting("Parts around the body points (HOReID).", default=False)
    pose_width: int = setting("Feature size of a part around a body point.", least=1, default=256)
    pose_weight: float = setting(
        "Weight of the identity loss of the parts around body points.", least=0, default=1.0
    )

    @property
    def active(self) -> bool:
        return self.pose

    def heads(self, annotations: Annotations) -> "list[Head]":
        return [models.heads.PoseHead(annotations.keypoints, self.pose_width)]

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        from keras_reid.losses import VisibleIdentityLoss

        loss = VisibleIdentityLoss(settings.label_smoothing)
        return [*terms, Term("part_logits", loss, self.pose_weight * settings.identity_weight)]
