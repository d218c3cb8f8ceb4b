"""Clips of tracklets (Gao and Nevatia, arXiv:1805.02104)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from keras_reid import checks, data, models
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
        f"Pooling of the frames of a tracklet: {', '.join(TEMPORAL)}. Not set: single images.",
        default="",
    )
    frames: int = setting(
        "Number of frames of a clip; a batch has P x K clips.", least=1, default=4
    )
    frame_weight: float = setting(
        "Weight of the losses of single frames, relative to the losses of clips; 0: none.",
        least=0,
        default=1.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temporal:
            checks.one_of(TEMPORAL, temporal=self.temporal)

    @property
    def active(self) -> bool:
        return bool(self.temporal)

    @property
    def fixed(self) -> Mapping[str, Any]:
        return {**super().fixed, "stripes": 0, "distillation": "", "members": ""}

    def dataset(self, dataset: "data.ReidDataset") -> "data.ReidDataset":
        return data.tracklet_dataset(dataset)

    def sampled(self, images: "data.PersonImages") -> "data.PersonImages":
        return images.per_tracklet()

    def batches(self, factory: Factory) -> Factory:
        return data.pk_clips, {**factory[1], "frames": self.frames}

    def model(self, *sizes: Any, **common: Any) -> "keras.Model":
        return models.build_tracklet(*sizes, temporal=self.temporal, **common)

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
