"""Heads for additional outputs of a model, necks and classifiers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import keras

from keras_reid import checks
from keras_reid.layers import (
    AttributeProbabilities,
    AttributeReweighting,
    AverageMaxPooling2D,
    CosineClassifier,
    FusedBatchNormalization,
    KeypointHeatmaps,
    PartClassifiers,
    PartPooling,
    PosePooling,
    StripePooling,
    VisibleParts,
)
from keras_reid.models.registry import STRIPE_ORDERS
from keras_reid.skeletons import SKELETONS

# (feature map (b, h, w, d), number of identities or None, its `needs` by name) -> outputs by name
Head = Callable[..., dict[str, Any]]


def batch_norm(x: Any, name: str = "embedding") -> Any:
    """Batch normalization without shift, the BNNeck.

    Args:
        x: features `(b, d)`, or parts `(b, p, d)`.
        name: name of the layer.
    """
    # Without a shift, the identities are spread around the origin, for a classifier without bias.
    # The momentum is low, because re-identification is trained in few, large steps.
    return keras.layers.BatchNormalization(center=False, momentum=0.9, name=name)(x)


def no_neck(x: Any, name: str = "embedding") -> Any:
    """Return the features unchanged.

    Args:
        x: features `(b, d)`.
        name: name of the layer.
    """
    return keras.layers.Identity(name=name)(x)


def linear(x: Any, num_identities: int, name: str = "logits") -> Any:
    """Return the logits `(b, c)` of a linear classifier without bias.

    Args:
        x: features `(b, d)`.
        num_identities: c.
        name: name of the layer.
    """
    return keras.layers.Dense(
        num_identities,
        use_bias=False,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
        dtype="float32",
        name=name,
    )(x)


def cosine(x: Any, num_identities: int) -> Any:
    """Return the cosines `(b, c)` between the features and the weights of each identity.

    Args:
        x: features `(b, d)`.
        num_identities: c.
    """
    return CosineClassifier(num_identities, name="logits")(x)


def inputs_of(head: Head) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the inputs of a head in addition to images, by name."""
    return getattr(head, "inputs", {})


@dataclass(frozen=True)
class LocalHead:
    """`local` `(b, s, width)`: one vector for each stripe, see `losses.AlignedTripletLoss`.

    The default order, mean of a stripe, 1×1 convolution, batch normalization and ReLU, is that of
    the first reproduction of AlignedReID (arXiv:1711.08184). AlignedReID++ (Luo et al., Pattern
    Recognition 2019) is `pooling="max", order="bn_relu_conv", normalize=True`.

    Args:
        stripes: s, at most the rows of the map.
        width: size of a local feature.
        pooling: `"avg"` or `"max"`, along a stripe.
        order: `"conv_bn_relu"`: all after the pooling; `"bn_relu_conv"`: batch normalization and
            ReLU before the pooling, the convolution after it.
        normalize: scale each local feature to length 1.

    Raises:
        InputError: an unknown order or pooling, or a width below 1; when called, more stripes than
            rows.

    Example:
        >>> head = LocalHead(stripes=4, width=32)
        >>> {name: tuple(x.shape) for name, x in head(keras.Input((8, 4, 128)), 10).items()}
        {'local': (None, 4, 32)}
    """

    stripes: int = 8
    width: int = 128
    pooling: str = "avg"
    order: str = "conv_bn_relu"
    normalize: bool = False

    def __post_init__(self) -> None:
        checks.one_of(STRIPE_ORDERS, order=self.order)
        checks.at_least(1, width=self.width)

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
    """`parts` `(b, p, width)`, `part_logits` `(b, p, c)` and, instead of the neck, `embedding`.

    PCB (Sun et al., ECCV 2018, arXiv:1711.09349): stripes `g` are pooled, `parts` are
    `ReLU(BN(conv(dropout(g))))` with one convolution for all, and each part has a classifier. The
    embedding `(b, p · d)` concatenates all `g_i / |g_i|`. d is the number of channels of the map.

    Args:
        parts: p, at most the rows of the map.
        width: size of a part.
        dropout: fraction of `g` that is dropped in training.
        refinable: allow refinement of the parts, see `layers.PartPooling`.

    Raises:
        InputError: a width below 1 or a fraction outside of [0, 1); when called, more parts than
            rows.

    Example:
        >>> head = PartHead(parts=4, width=32)
        >>> {name: tuple(x.shape) for name, x in head(keras.Input((8, 4, 128)), 10).items()}
        {'parts': (None, 4, 32), 'embedding': (None, 512), 'part_logits': (None, 4, 10)}
    """

    parts: int = 6
    width: int = 256
    dropout: float = 0.5
    refinable: bool = False

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width)
        checks.within("[0, 1)", "0.5 is usual.", dropout=self.dropout)

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
            "embedding": keras.layers.Flatten("channels_last", dtype="float32", name="embedding")(
                unit
            ),
        }
        if num_identities is not None:
            outputs["part_logits"] = PartClassifiers(num_identities, name="part_logits")(parts)
        return outputs


@dataclass(frozen=True)
class PoseHead:
    """Parts at the body points: `parts` `(b, 13, width)` and `visibility` `(b, 13)`.

    The simplest form of HOReID (Wang et al., CVPR 2020, arXiv:2003.08177): heat maps of the points
    of head and twelve joints pool the feature map, see `layers.PosePooling`; a dense layer and
    batch normalization for all parts follow, and each part has a classifier, `part_logits`
    `(b, 13, c)`, for `losses.VisibleIdentityLoss`. `global` `(b, d)` is mean plus maximum of the
    map, of d channels, after a BN neck, with the classifier `logits`. The head replaces the neck:
    `embedding` concatenates `global` and the parts, weighted by the root of their visibility, see
    `layers.VisibleParts`. The model takes `{"images", "keypoints"}`.

    Args:
        keypoints: number of points of the skeleton, see `keras_reid.skeletons.SKELETONS`.
        width: size of a part.
        sigma: standard deviation of the heat of a point, in cells of the map.

    Raises:
        InputError: an unknown skeleton, or a width below 1.

    Example:
        >>> maps, keypoints = keras.Input((8, 4, 128)), keras.Input((17, 3))
        >>> outputs = PoseHead(width=32)(maps, None, keypoints=keypoints)
        >>> {name: tuple(outputs[name].shape) for name in ("parts", "embedding")}  # 128 + 13 · 32
        {'parts': (None, 13, 32), 'embedding': (None, 544)}
    """

    keypoints: int = 17
    width: int = 256
    sigma: float = 1.0
    needs: ClassVar[tuple[str, ...]] = ("keypoints",)

    def __post_init__(self) -> None:
        checks.one_of(SKELETONS, keypoints=self.keypoints)
        checks.at_least(1, width=self.width)

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs in addition to images."""
        return {"keypoints": (self.keypoints, 3)}

    def __call__(self, maps: Any, num_identities: int | None, *, keypoints: Any) -> dict[str, Any]:
        heat = KeypointHeatmaps(maps.shape[1:3], self.sigma, name="heatmaps")(keypoints)
        pool = PosePooling(SKELETONS[self.keypoints].groups, name="pose_pool")
        pooled, visibility = pool([maps, heat, keypoints[..., 2]])
        parts = keras.layers.Dense(
            self.width, use_bias=False, kernel_initializer="he_normal", name="part_conv"
        )(pooled)
        parts = keras.layers.BatchNormalization(center=False, momentum=0.9, name="part_bn")(parts)
        whole = batch_norm(AverageMaxPooling2D(name="whole_pool")(maps), "whole")
        outputs = {
            "parts": keras.layers.Activation("linear", dtype="float32", name="parts")(parts),
            "visibility": keras.layers.Identity(dtype="float32", name="visibility")(visibility),
            "global": keras.layers.Activation("linear", dtype="float32", name="global")(whole),
            "embedding": VisibleParts(name="embedding")([whole, parts, visibility]),
        }
        if num_identities is not None:
            outputs["logits"] = linear(whole, num_identities)
            outputs["part_logits"] = PartClassifiers(num_identities, name="part_logits")(parts)
        return outputs


@dataclass(frozen=True)
class AttributeHead:
    """`attributes` `(b, m)`, logits, and an `embedding` of features and attributes.

    The attributes a are predicted from `features` after a batch normalization. Re-weighted by each
    other, `σ(Va + b) ∘ a`, they are concatenated with the features before the neck (Lin et al.,
    APR, Pattern Recognition 2019, arXiv:1703.07220). The head replaces neck and classifier.
    `attribute_probabilities` `(b, m)` are a, by a sigmoid, or by a softmax in an exclusive group.

    Args:
        count: m.
        exclusive: groups of columns, such as the colors of trousers; at most one column of a group
            is true.
        reweighted: include the attributes in the embedding.

    Raises:
        InputError: as `layers.AttributeProbabilities`.

    Example:
        >>> maps, features = keras.Input((8, 4, 128)), keras.Input((128,))
        >>> outputs = AttributeHead(count=7)(maps, None, features=features)
        >>> {name: tuple(outputs[name].shape) for name in ("attributes", "embedding")}  # 128 + 7
        {'attributes': (None, 7), 'embedding': (None, 135)}
    """

    count: int
    exclusive: tuple[tuple[int, ...], ...] = field(default=())
    reweighted: bool = True
    needs: ClassVar[tuple[str, ...]] = ("features",)

    def __call__(self, maps: Any, num_identities: int | None, *, features: Any) -> dict[str, Any]:
        del maps
        normal = batch_norm(features, "attribute_norm")
        logits = keras.layers.Dense(self.count, dtype="float32", name="attributes")(normal)
        shares = AttributeProbabilities(self.exclusive, name="attribute_probabilities")(logits)
        outputs = {"attributes": logits, "attribute_probabilities": shares}
        if self.reweighted:
            weighted = AttributeReweighting(name="attribute_weights")(shares)
            features = keras.layers.Concatenate(dtype="float32", name="described")(
                [features, weighted]
            )
        outputs["embedding"] = batch_norm(features)
        if num_identities is not None:
            outputs["logits"] = linear(outputs["embedding"], num_identities)
        return outputs
