"""Losses by the names that recipes and flags use, and the public names of the package."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from keras_reid.registry import Registry, registered_classes

if TYPE_CHECKING:
    from keras_reid.losses.base import MetricLoss
    from keras_reid.losses.distillation import DistillationLoss
    from keras_reid.losses.margins import Margin


def loss_name(class_name: str) -> str:
    """Return the name of a class in snake case, without `Loss`.

    >>> loss_name("TripletHardLoss")
    'triplet_hard'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name.removesuffix("Loss")).lower()


# Names of each module: classes that are registered with Keras are public.
PUBLIC = registered_classes(Path(__file__).parent)
# All losses in these modules compare one output (b, d) with the identities.
_PATHS = {
    loss_name(name): f"keras_reid.losses.{module}:{name}"
    for module in ("metric", "pairs", "quadruplet")
    for name in PUBLIC[module]
}
METRIC_LOSSES: "Registry[type[MetricLoss]]" = Registry(**dict(sorted(_PATHS.items())))
DISTILLATION_LOSSES: "Registry[type[DistillationLoss]]" = Registry(
    logits="keras_reid.losses.distillation:LogitDistillationLoss",
    cosine="keras_reid.losses.distillation:CosineDistillationLoss",
    distances="keras_reid.losses.distillation:DistanceDistillationLoss",
    ranks="keras_reid.losses.ranks:RankDistillationLoss",
)
# Kinds of `MarginSoftmaxLoss`.
MARGINS: "Registry[Margin]" = Registry(
    arcface="keras_reid.losses.margins:ARCFACE",
    cosface="keras_reid.losses.margins:COSFACE",
    sphereface="keras_reid.losses.margins:SPHERE",
)
PUBLIC["base"].append("STATISTICS")
PUBLIC["distillation"].append("DistillationLoss")
PUBLIC["registry"] = ["DISTILLATION_LOSSES", "MARGINS", "METRIC_LOSSES"]
