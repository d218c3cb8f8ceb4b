"""Parts of models by the names that recipes and flags use."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_reid.layers.registry import POOLINGS
from keras_reid.registry import Registry

if TYPE_CHECKING:
    import keras

__all__ = ["BACKBONES", "CLASSIFIERS", "EMBEDDINGS", "NECKS", "POOLINGS", "STRIPE_ORDERS"]

# ("imagenet" or None, (height, width, 3)) → model of feature maps.
BACKBONES: "Registry[Callable[[str | None, tuple[int, int, int]], keras.Model]]" = Registry(
    **{"efficientnetv2-b0": "keras_reid.models.backbones:efficientnetv2_b0"},
    mobilenetv2="keras_reid.models.backbones:mobilenetv2",
    resnet50="keras_reid.models.backbones:resnet50",
    tiny="keras_reid.models.backbones:tiny",
)
NECKS: Registry[Callable[..., Any]] = Registry(
    bn="keras_reid.models.heads:batch_norm", none="keras_reid.models.heads:no_neck"
)
CLASSIFIERS: Registry[Callable[[Any, int], Any]] = Registry(
    linear="keras_reid.models.heads:linear", cosine="keras_reid.models.heads:cosine"
)
EMBEDDINGS = ("neck", "features")
STRIPE_ORDERS = ("conv_bn_relu", "bn_relu_conv")
