"""Local features that are aligned (Zhang et al., AlignedReID, 2017, arXiv:1711.08184)."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from keras_reid import checks, models
from keras_reid.layers.registry import STRIPE_POOLINGS
from keras_reid.models.registry import STRIPE_ORDERS
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
class Stripes(Method):
    """`local_weight · aligned triplet loss(features, local)` of the stripes of the feature map.

    It mines by the distance that the metric loss compares, and of stripes of length 1 if that
    normalizes.
    """

    stripes: int = setting(
        "Stripes of the local features, which the aligned triplet loss trains; 0: none.",
        partial(checks.at_least, 0),
        default=0,
    )
    stripe_width: int = setting(
        "Width of a local feature.", partial(checks.at_least, 1), default=128
    )
    stripe_pooling: str = setting(
        "avg or max, along the stripes.", partial(checks.one_of, STRIPE_POOLINGS), default="avg"
    )
    stripe_order: str = setting(
        "conv_bn_relu after the pooling, or bn_relu_conv with the first two before it.",
        partial(checks.one_of, STRIPE_ORDERS),
        default="conv_bn_relu",
    )
    stripe_normalize: bool = setting("Local features of length 1.", default=False)
    local_weight: float = setting(
        "Weight of the aligned triplet loss.", partial(checks.at_least, 0), default=1.0
    )

    @property
    def active(self) -> bool:
        return self.stripes > 0

    def heads(self, annotations: Annotations) -> "list[Head]":
        return [
            models.heads.LocalHead(
                self.stripes,
                self.stripe_width,
                self.stripe_pooling,
                self.stripe_order,
                self.stripe_normalize,
            )
        ]

    def losses(
        self, losses: list[WeightedLoss], settings: LossSettings, annotations: Annotations
    ) -> list[WeightedLoss]:
        from keras_reid.losses import AlignedTripletLoss

        loss = AlignedTripletLoss(**settings.of_metric("margin", "normalize"))
        return [*losses, WeightedLoss("features", loss, self.local_weight)]
