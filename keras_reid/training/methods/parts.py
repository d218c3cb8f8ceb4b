"""Parts with a classifier each, and then refined (Sun et al., ECCV 2018, arXiv:1711.09349)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from keras_reid import checks, models
from keras_reid.errors import InputError
from keras_reid.training.methods.method import (
    Annotations,
    LossSettings,
    Method,
    Phase,
    WeightedLoss,
    setting,
)

if TYPE_CHECKING:
    import keras

    from keras_reid.layers import PartPooling
    from keras_reid.models.heads import Head


@dataclass(frozen=True, kw_only=True)
class Parts(Method):
    """Identity loss `Σ CE(part logits)` (PCB), and phases in which the parts are refined (RPP).

    Refined, a pixel is assigned to parts by what was learned: first the assignment alone is
    trained, then the whole.
    """

    embeds: ClassVar[bool] = True
    parts: int = setting(
        "Parts with a classifier each (PCB), which take the place of neck and classifier; 0: none.",
        partial(checks.at_least, 0),
        default=0,
    )
    part_width: int = setting(
        "Width of the feature of a part.", partial(checks.at_least, 1), default=256
    )
    part_dropout: float = setting(
        "Dropout of the features of the parts.", partial(checks.within, "[0, 1)"), default=0.5
    )
    induction_epochs: int = setting(
        "Epochs, after the others, in which only the refined assignment of pixels to parts (RPP) "
        "is trained; 0: none.",
        partial(checks.at_least, 0),
        default=0,
    )
    refinement_epochs: int = setting(
        "Epochs, after those, of the whole with refined parts.",
        partial(checks.at_least, 0),
        default=0,
    )

    @property
    def active(self) -> bool:
        return bool(self.parts or self.induction_epochs or self.refinement_epochs)

    def check(self, settings: Mapping[str, Any]) -> None:
        if not self.parts:
            raise InputError(
                f"what is refined are parts: received induction_epochs={self.induction_epochs} and "
                f"refinement_epochs={self.refinement_epochs} with parts=0; give the number of parts"
            )

    def heads(self, annotations: Annotations) -> "list[Head]":
        refinable = bool(self.induction_epochs or self.refinement_epochs)
        return [models.heads.PartHead(self.parts, self.part_width, self.part_dropout, refinable)]

    def losses(
        self, losses: list[WeightedLoss], settings: LossSettings, annotations: Annotations
    ) -> list[WeightedLoss]:
        return [
            one._replace(output="part_logits") if one.output == "logits" else one for one in losses
        ]

    def phases(self, phases: list[Phase], settings: Mapping[str, Any]) -> list[Phase]:
        last = phases[-1].changes
        refined = [
            RefinedPhase({**last, "epochs": epochs}, only_assignment)
            for epochs, only_assignment in (
                (self.induction_epochs, True),
                (self.refinement_epochs, False),
            )
            if epochs
        ]
        return [*(RoughPhase(phase.changes) for phase in phases), *refined]


class RoughPhase(Phase):
    """Parts are equal slices of the feature map."""

    @contextmanager
    def prepared(self, members: "Sequence[keras.Model]") -> Iterator[None]:
        _refine(members, False)
        yield


@dataclass(frozen=True)
class RefinedPhase(Phase):
    """Pixels are assigned to parts by what was learned.

    Attributes:
        only_assignment: nothing else is trained.
    """

    only_assignment: bool = False

    @contextmanager
    def prepared(self, members: "Sequence[keras.Model]") -> Iterator[None]:
        parts = _refine(members, True)
        layers = [layer for model in members for layer in model.layers]
        others = [layer for layer in layers if layer.trainable and layer not in parts]
        frozen = others if self.only_assignment else []
        for layer in frozen:
            layer.trainable = False
        try:
            yield
        finally:
            for layer in frozen:
                layer.trainable = True


def _refine(members: "Sequence[keras.Model]", refined: bool) -> "list[PartPooling]":
    """The layers that pool the parts, which are refined or not from now on."""
    from keras_reid.layers import PartPooling

    layers = [layer for model in members for layer in model.layers]
    parts = [layer for layer in layers if isinstance(layer, PartPooling)]
    for layer in parts:
        if layer.refinable:
            layer.refined.assign(float(refined))
    return parts
