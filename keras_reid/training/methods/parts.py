"""Parts with a classifier each, then refined parts (Sun et al., ECCV 2018, arXiv:1711.09349)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from keras_reid import models
from keras_reid.errors import invalid
from keras_reid.training.methods.method import (
    Annotations,
    LossSettings,
    Method,
    Phase,
    Term,
    setting,
)

if TYPE_CHECKING:
    import keras

    from keras_reid.models.heads import Head


@dataclass(frozen=True, kw_only=True)
class Parts(Method):
    """Identity loss `Σ CE(part logits)` (PCB), and phases that refine the parts (RPP).

    A refined assignment of pixels to parts is learned: first only the assignment, then the whole
    model.
    """

    embeds: ClassVar[bool] = True
    parts: int = setting(
        "Number of parts with a classifier each (PCB), instead of neck and classifier; 0: none.",
        least=0,
        default=0,
    )
    part_width: int = setting("Feature size of a part.", least=1, default=256)
    part_dropout: float = setting(
        "Dropout rate of the features of the parts.", interval="[0, 1)", default=0.5
    )
    induction_epochs: int = setting(
        "Number of epochs after the main phase that train only the assignment of pixels to parts "
        "(RPP); 0: none.",
        least=0,
        default=0,
    )
    refinement_epochs: int = setting(
        "Number of last epochs, which train the whole model with refined parts (RPP); 0: none.",
        least=0,
        default=0,
    )

    @property
    def refinable(self) -> bool:
        """True if there are phases with refined parts."""
        return bool(self.induction_epochs or self.refinement_epochs)

    @property
    def active(self) -> bool:
        return self.parts > 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.refinable and not self.parts:
            rule = "positive with induction_epochs or refinement_epochs"
            raise invalid("parts", rule, self.parts)

    def heads(self, annotations: Annotations) -> "list[Head]":
        sizes = self.parts, self.part_width, self.part_dropout
        return [models.heads.PartHead(*sizes, self.refinable)]

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        return [
            term._replace(output="part_logits") if term.output == "logits" else term
            for term in terms
        ]

    def phases(self, phases: list[Phase], settings: Mapping[str, Any]) -> list[Phase]:
        last = phases[-1].changes
        refined = [
            PartPhase({**last, "epochs": epochs}, True, alone)
            for epochs, alone in ((self.induction_epochs, True), (self.refinement_epochs, False))
            if epochs
        ]
        return [*(PartPhase(phase.changes) for phase in phases), *refined]


@dataclass(frozen=True)
class PartPhase(Phase):
    """Phase with parts that are equal slices of the feature map, or refined.

    Attributes:
        refined: assign pixels to parts by a learned classifier.
        only_assignment: train only the assignment of pixels to parts.
    """

    refined: bool = False
    only_assignment: bool = False

    @contextmanager
    def prepared(self, members: "Sequence[keras.Model]") -> Iterator[None]:
        from keras_reid.layers import PartPooling

        layers = [layer for model in members for layer in model.layers]
        parts = [layer for layer in layers if isinstance(layer, PartPooling)]
        for layer in parts:
            if layer.refinable:
                layer.refined.assign(float(self.refined))
        others = [layer for layer in layers if layer.trainable and layer not in parts]
        frozen = others if self.only_assignment else []
        for layer in frozen:
            layer.trainable = False
        try:
            yield
        finally:
            for layer in frozen:
                layer.trainable = True
