"""Identity and attributes together (Lin et al., Pattern Recognition 2019, arXiv:1703.07220)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from keras_reid import models
from keras_reid.training.methods.method import Annotations, LossSettings, Method, Term, setting

if TYPE_CHECKING:
    from keras_reid.models.heads import Head


@dataclass(frozen=True, kw_only=True)
class Attributes(Method):
    """`attribute_weight · mean attribute loss`; the embedding contains the attributes too."""

    columns: ClassVar[tuple[str, ...]] = ("attributes",)
    embeds: ClassVar[bool] = True
    attribute_weight: float = setting(
        "Weight of the mean loss of the attributes; 0: none.", least=0, default=0.0
    )

    @property
    def active(self) -> bool:
        return self.attribute_weight > 0

    def heads(self, annotations: Annotations) -> "list[Head]":
        schema = annotations.schema
        return [models.heads.AttributeHead(len(schema.names), schema.exclusive)]

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        from keras_reid.losses import AttributeLoss

        annotations = settings.annotations
        loss = AttributeLoss(annotations.rates.tolist(), annotations.schema.exclusive)
        return [*terms, Term("attributes", loss, self.attribute_weight / loss.classifiers)]
