"""Clips of tracklets (Gao and Nevatia, arXiv:1805.02104)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from keras_reid import checks, data, models
from keras_reid.errors import InputError
from keras_reid.layers.registry import TEMPORAL
from keras_reid.training.methods.method import (
    Annotations,
    LossSettings,
    Method,
    WeightedLoss,
    setting,
)

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Tracklets(Method):
    """The losses of clips, and `frame_weight` times the same losses of their single frames."""

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

    def check(self, settings: Mapping[str, Any]) -> None:
        checks.one_of(TEMPORAL, temporal=self.temporal)
        if settings["stripes"] or settings["distillation"] or "," in settings["members"]:
            raise InputError(
                "tracklets are learned by one model without stripes, parts, pose and attributes: "
                f"received temporal={self.temporal!r} beside them"
            )

    def dataset(self, dataset: "data.ReidDataset") -> "data.ReidDataset":
        return data.tracklet_dataset(dataset)

    def sampled(self, images: "data.PersonImages") -> "data.PersonImages":
        return images.per_tracklet()

    def batches(self, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        return data.pk_clips, {**arguments, "frames": self.frames}

    def model(
        self, backbone: str, num_identities: int | None, image_size: tuple[int, int], **common: Any
    ) -> "keras.Model | None":
        return models.build_tracklet(
            backbone, num_identities, image_size, temporal=self.temporal, **common
        )

    def losses(
        self, losses: list[WeightedLoss], settings: LossSettings, annotations: Annotations
    ) -> list[WeightedLoss]:
        of_frames = [
            WeightedLoss(
                f"frame_{output}",
                type(loss).from_config({**loss.get_config(), "label": "frame_identity"}),
                self.frame_weight * weight,
            )
            for output, loss, weight in losses
        ]
        return losses + of_frames
