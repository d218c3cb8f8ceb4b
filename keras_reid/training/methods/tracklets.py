"""Clips of tracklets (Gao and Nevatia, arXiv:1805.02104)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from keras_reid import checks, data, models
from keras_reid.errors import InputError
from keras_reid.layers.registry import TEMPORAL
from keras_reid.training.methods.method import Factory, LossSettings, Method, Term, setting

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Tracklets(Method):
    """The losses of clips, and `frame_weight` times the same losses of their single frames."""

    columns: ClassVar[tuple[str, ...]] = ("tracklet",)
    embeds: ClassVar[bool] = True
    temporal: str = setting(
        f"Pooling of the frames of a tracklet: {', '.join(TEMPORAL)}; empty: images, no tracklets.",
        default="",
    )
    frames: int = setting(
        "Number of frames of a clip. A batch has P x K clips.", least=1, default=4
    )
    frame_weight: float = setting(
        "Weight of the losses of single frames, relative to those of clips; 0: none.",
        least=0,
        default=1.0,
    )

    @property
    def active(self) -> bool:
        return bool(self.temporal)

    def check(self, settings: Mapping[str, Any]) -> None:
        checks.one_of(TEMPORAL, temporal=self.temporal)
        if settings["stripes"] or settings["distillation"] or "," in settings["members"]:
            raise InputError(
                "`temporal` requires a single model without stripes and distillation, got "
                f"{self.temporal!r} with them. Leave them out.",
                "temporal",
            )

    def dataset(self, dataset: "data.ReidDataset") -> "data.ReidDataset":
        return data.tracklet_dataset(dataset)

    def sampled(self, images: "data.PersonImages") -> "data.PersonImages":
        return images.per_tracklet()

    def batches(self, factory: Factory) -> Factory:
        return data.pk_clips, {**factory[1], "frames": self.frames}

    def model(
        self, backbone: str, num_identities: int | None, image_size: tuple[int, int], **common: Any
    ) -> "keras.Model":
        return models.build_tracklet(
            backbone, num_identities, image_size, temporal=self.temporal, **common
        )

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        of_frames = [
            Term(
                f"frame_{output}",
                type(loss).from_config({**loss.get_config(), "label": "frame_identity"}),
                self.frame_weight * weight,
            )
            for output, loss, weight in terms
        ]
        return terms + of_frames

    def evaluation(self, factory: Factory) -> Factory:
        return factory[0], {**factory[1], "frames": self.frames}
