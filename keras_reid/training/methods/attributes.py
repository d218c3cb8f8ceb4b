"""Identity and attributes together (Lin et al., Pattern Recognition 2019, arXiv:1703.07220)."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from keras_reid import checks, models
from keras_reid.errors import InputError
from keras_reid.training.methods.method import (
    Annotations,
    LossSettings,
    Method,
    WeightedLoss,
    setting,
)

if TYPE_CHECKING:
    from keras_reid.data import AttributeSchema
    from keras_reid.models.heads import Head


@dataclass(frozen=True, kw_only=True)
class Attributes(Method):
    """`attribute_weight · mean attribute loss`; the embedding has the attributes too."""

    columns: ClassVar[tuple[str, ...]] = ("attributes",)
    embeds: ClassVar[bool] = True
    attribute_weight: float = setting(
        "Weight of the mean loss of the attributes; 0: none.",
        partial(checks.at_least, 0),
        default=0.0,
    )

    @property
    def active(self) -> bool:
        return self.attribute_weight > 0

    def heads(self, annotations: Annotations) -> "list[Head]":
        schema = _schema(annotations)
        return [models.heads.AttributeHead(len(schema.names), schema.exclusive)]

    def losses(
        self, losses: list[WeightedLoss], settings: LossSettings, annotations: Annotations
    ) -> list[WeightedLoss]:
        from keras_reid.losses import AttributeLoss

        loss = AttributeLoss(annotations.rates.tolist(), _schema(annotations).exclusive)
        weight = self.attribute_weight / loss.classifiers
        return [*losses, WeightedLoss("attributes", loss, weight)]


def _schema(annotations: Annotations) -> "AttributeSchema":
    if annotations.schema is None:
        raise InputError(
            "attributes of the identities are learned from a table: give attributes", "attributes"
        )
    return annotations.schema
