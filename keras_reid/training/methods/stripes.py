"""Aligned local features (Zhang et al., AlignedReID, 2017, arXiv:1711.08184)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from keras_reid import models
from keras_reid.layers.registry import STRIPE_POOLINGS
from keras_reid.models.registry import STRIPE_ORDERS
from keras_reid.training.methods.method import Annotations, LossSettings, Method, Term, setting

if TYPE_CHECKING:
    from keras_reid.models.heads import Head


@dataclass(frozen=True, kw_only=True)
class Stripes(Method):
    """`local_weight · aligned triplet loss(features, local)` of the stripes of the feature map.

    The loss mines by the distance of the metric loss, and normalizes stripes if that loss does.
    """

    stripes: int = setting(
        "Number of stripes of the local features, for the aligned triplet loss; 0: none.",
        least=0,
        default=0,
    )
    stripe_width: int = setting("Feature size of a stripe.", least=1, default=128)
    stripe_pooling: str = setting(
        "Pooling of a stripe: avg or max.", choices=STRIPE_POOLINGS, default="avg"
    )
    stripe_order: str = setting(
        "Layers of the local features: conv_bn_relu (all after the pooling) or bn_relu_conv (batch "
        "normalization and ReLU before the pooling, the convolution after it).",
        choices=STRIPE_ORDERS,
        default="conv_bn_relu",
    )
    stripe_normalize: bool = setting("L2 normalization of the local features.", default=False)
    local_weight: float = setting("Weight of the aligned triplet loss.", least=0, default=1.0)

    @property
    def active(self) -> bool:
        return self.stripes > 0

    def heads(self, annotations: Annotations) -> "list[Head]":
        how = self.stripe_pooling, self.stripe_order, self.stripe_normalize
        return [models.heads.LocalHead(self.stripes, self.stripe_width, *how)]

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        from keras_reid.losses import AlignedTripletLoss

        loss = AlignedTripletLoss(**settings.of_metric("margin", "normalize"))
        return [*terms, Term("features", loss, self.local_weight)]
