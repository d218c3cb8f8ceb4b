"""Layers and poolings by the names that models, recipes and flags use."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_reid.registry import Registry, registered_classes

if TYPE_CHECKING:
    import keras

# Names of each module: classes that are registered with Keras are public.
PUBLIC = registered_classes(Path(__file__).parent) | {"registry": ["POOLINGS", "TEMPORAL"]}
# Feature maps (b, h, w, d) → (b, d).
POOLINGS: "Registry[Callable[..., keras.layers.Layer]]" = Registry(
    avg="keras_reid.layers.pooling:global_average",
    avg_max="keras_reid.layers.pooling:AverageMaxPooling2D",
    gem="keras_reid.layers.pooling:GeneralizedMeanPooling2D",
    max="keras_reid.layers.pooling:global_max",
)
# Clips (b, t, d) → (b, d).
TEMPORAL: "Registry[type[keras.layers.Layer]]" = Registry(
    mean="keras_reid.layers.temporal:TemporalMean",
    max="keras_reid.layers.temporal:TemporalMax",
    attention="keras_reid.layers.temporal:TemporalAttention",
    recurrent="keras_reid.layers.temporal:TemporalRecurrent",
)
# Reductions along a stripe.
STRIPE_POOLINGS: Registry[Callable[..., Any]] = Registry(avg="keras.ops:mean", max="keras.ops:max")
