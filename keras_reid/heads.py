"""Heads: what a model says beside its global feature. Called on its feature map `(b, h, w, d)`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_reid.errors import InputError
from keras_reid.layers import FusedBatchNormalization, PartClassifiers, PartPooling, StripePooling

# (feature map, number of identities or None) -> outputs by name
Head = Callable[[Any, int | None], dict[str, Any]]

ORDERS = ("conv_bn_relu", "bn_relu_conv")


@dataclass(frozen=True)
class LocalHead:
    """`local` `(b, s, width)`: one vector for each stripe, see `losses.AlignedTripletLoss`.

    As the first reproduction of AlignedReID (arXiv:1711.08184) has it: mean of a stripe, 1×1
    convolution, batch normalisation, ReLU. AlignedReID++ (Luo et al., Pattern Recognition 2019) is
    `pooling="max", order="bn_relu_conv", normalize=True`.

    Args:
        stripes: s, at most the rows of the map.
        width: of a local feature.
        pooling: `"avg"` or `"max"`, along a stripe.
        order: `"conv_bn_relu"` after the pooling, or `"bn_relu_conv"`, the first two before it.
        normalize: scale each local feature to length 1.

    Raises:
        InputError: an unknown order or pooling, or a width below 1; when called, more stripes than
            rows.
    """

    stripes: int = 8
    width: int = 128
    pooling: str = "avg"
    order: str = "conv_bn_relu"
    normalize: bool = False

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise InputError(
                f"the order of a local head is {' or '.join(ORDERS)}: received {self.order!r}"
            )
        if self.width < 1:
            raise InputError(f"a local feature has a width of at least 1: received {self.width}")

    def __call__(self, maps: Any, num_identities: int | None) -> dict[str, Any]:
        pool = StripePooling(self.stripes, self.pooling, name="stripes")
        # On stripes, a convolution of 1×1 is a dense layer.
        conv = keras.layers.Dense(
            self.width, use_bias=False, kernel_initializer="he_normal", name="local_conv"
        )
        relu = keras.layers.ReLU(name="local_relu")
        if self.order == "conv_bn_relu":
            norm = keras.layers.BatchNormalization(momentum=0.9, name="local_bn")
            x = relu(norm(conv(pool(maps))))
        else:
            norm = FusedBatchNormalization(momentum=0.9, name="local_bn")
            x = conv(pool(relu(norm(maps))))
        if self.normalize:
            x = keras.layers.UnitNormalization(dtype="float32", name="local_unit")(x)
        return {"local": keras.layers.Activation("linear", dtype="float32", name="local")(x)}


@dataclass(frozen=True)
class PartHead:
    """`parts` `(b, p, width)`, `part_logits` `(b, p, c)` and, in place of the neck, `embedding`.

    PCB (Sun et al., ECCV 2018, arXiv:1711.09349): stripes `g` are pooled, `parts` are
    `ReLU(BN(conv(dropout(g))))` by one convolution for all, and each part has a classifier. The
    embedding `(b, p · d)` are all `g_i / |g_i|` side by side.

    Args:
        parts: p, at most the rows of the map.
        width: of a part.
        dropout: share of `g` that is dropped in training.
        refinable: the parts can be refined, see `layers.PartPooling`.

    Raises:
        InputError: a width below 1 or a share outside of [0, 1); when called, more parts than rows.
    """

    parts: int = 6
    width: int = 256
    dropout: float = 0.5
    refinable: bool = False

    def __post_init__(self) -> None:
        if self.width < 1 or not 0 <= self.dropout < 1:
            raise InputError(
                "a part has a width of at least 1 and a dropout in [0, 1): received "
                f"width={self.width} and dropout={self.dropout}"
            )

    def __call__(self, maps: Any, num_identities: int | None) -> dict[str, Any]:
        pooled = PartPooling(self.parts, self.refinable, name="part_pool")(maps)
        x = keras.layers.Dropout(self.dropout, name="part_dropout")(pooled)
        x = keras.layers.Dense(
            self.width, use_bias=False, kernel_initializer="he_normal", name="part_conv"
        )(x)
        x = keras.layers.BatchNormalization(momentum=0.9, name="part_bn")(x)
        parts = keras.layers.ReLU(name="part_relu")(x)
        unit = keras.layers.UnitNormalization(dtype="float32", name="part_unit")(pooled)
        outputs = {
            "parts": keras.layers.Activation("linear", dtype="float32", name="parts")(parts),
            "embedding": keras.layers.Flatten(dtype="float32", name="embedding")(unit),
        }
        if num_identities is not None:
            outputs["part_logits"] = PartClassifiers(num_identities, name="part_logits")(parts)
        return outputs
