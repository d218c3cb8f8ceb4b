"""Named sets of defaults for `train.py`; every value is a flag of the same name."""

import dataclasses
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_reid import checks, losses
from keras_reid.errors import InputError
from keras_reid.losses.registry import MARGINS, METRIC_LOSSES
from keras_reid.models.registry import BACKBONES, EMBEDDINGS, NECKS, POOLINGS
from keras_reid.training.methods import (
    Attributes,
    Distillation,
    LossSettings,
    Method,
    Parts,
    Phase,
    Pose,
    Pretraining,
    Settings,
    Stripes,
    Tracklets,
    setting,
)

if TYPE_CHECKING:
    import keras

POSITIVE = partial(checks.at_least, 1)
NOT_NEGATIVE = partial(checks.at_least, 0)
SIDE = partial(checks.within, "[1, 4096]", "a person has some hundred pixels")


def _check_margin(margin: str | float) -> None:
    try:
        valid = margin == "soft" or 0 <= float(margin) < float("inf")
    except ValueError:
        valid = False
    if not valid:
        raise InputError(
            f"`margin` must be a number of at least 0 or soft, got {margin!r}. Write margin=0.3.",
            "margin",
        )


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """What a training consists of: settings of the optimization, and methods.

    The fields say themselves what they mean; those of the methods do so in
    `keras_reid.training.methods`. `replace` takes both by their names.
    """

    backbone: str = setting(
        f"{', '.join(BACKBONES)}, or a .keras file; see keras_reid.models.backbones.build."
    )
    weights: str = setting("imagenet, none, or a .weights.h5 file of the backbone.")
    height: int = setting("Height of the images in pixels.", SIDE)
    width: int = setting("Width of the images in pixels.", SIDE)
    epochs: int = setting("How often every image is seen.", POSITIVE)
    learning_rate: float = setting("The highest rate of the schedule.", NOT_NEGATIVE)
    init_from: str = setting(
        "Run folder of a trained model to start from: layers of the same name and shapes take its "
        "weights; empty: none.",
        default="",
    )
    mixstyle: float = setting(
        "Probability with which the styles of a batch's images are mixed in early layers "
        "(MixStyle); 0: never.",
        partial(checks.within, "[0, 1]", "a probability"),
        default=0.0,
    )
    instance_norm: float = setting(
        "Share of the channels of early layers that are normalized over the positions of each "
        "image, against what is a camera's alone; 0: none.",
        partial(checks.within, "[0, 1]", "a share"),
        default=0.0,
    )
    pooling: str = setting(
        f"Pooling of the feature map: {', '.join(POOLINGS)}. gem is the generalized mean.",
        partial(checks.one_of, POOLINGS),
        default="avg",
    )
    neck: str = setting(
        f"{' or '.join(NECKS)}, before the classifier. bn is a batch normalization (BNNeck).",
        partial(checks.one_of, NECKS),
        default="bn",
    )
    embedding: str = setting(
        "What is compared at test time: what comes out of the neck, or features, what goes in.",
        partial(checks.one_of, EMBEDDINGS),
        default="neck",
    )
    last_stride: int = setting("1 keeps a finer last feature map; 2 is as published.", default=1)
    embedding_dim: int = setting(
        "Width of the embedding; 0 keeps the backbone's.", NOT_NEGATIVE, default=0
    )
    num_identities_per_batch: int = setting(
        "P, identities in a training batch of P x K images.", default=16
    )
    num_instances: int = setting("K, images of each identity in a training batch.", default=4)
    camera_balanced: bool = setting(
        "The K images of an identity in a batch are of as many cameras as possible.", default=False
    )
    augment: str = setting(
        "none, flip, crop (and flip) or default (flip, crop, erase), with any of color, grayscale "
        "and blur added by +, such as default+grayscale; see keras_reid.data.augment.",
        default="default",
    )
    schedule: str = setting("cosine, step or constant.", default="cosine")
    warmup: float = setting("Epochs over which the rate rises linearly.", NOT_NEGATIVE, default=1.0)
    weight_decay: float = setting("Of AdamW; 0 is plain Adam.", NOT_NEGATIVE, default=0.0)
    head_lr_multiplier: float = setting(
        "Factor of the rate for layers that are not the backbone's, above 0.",
        partial(checks.above, 0),
        default=1.0,
    )
    freeze_epochs: float = setting(
        "Epochs at the start in which the backbone stays as it is.", NOT_NEGATIVE, default=0.0
    )
    ema_momentum: float = setting(
        "Momentum of the moving average of the weights; 0: none.",
        partial(checks.within, "[0, 1)", "a momentum, of which 0.999 is usual"),
        default=0.0,
    )
    metric_loss: str = setting(
        f"{', '.join(METRIC_LOSSES)}: the loss of the features.",
        partial(checks.one_of, METRIC_LOSSES),
        default="triplet_hard",
    )
    metric_weight: float = setting("Weight of the metric loss; 0: none.", NOT_NEGATIVE, default=1.0)
    margin: str | float | None = setting(
        "Margin of the metric losses, or soft, log(1 + exp(d+ - d-)); none: that of the loss.",
        _check_margin,
        default=None,
    )
    metric_distance: str | None = setting(
        "euclidean, squared_euclidean or cosine, of the metric loss; none: the loss's own.",
        default=None,
    )
    normalize: bool | None = setting(
        "Compare features of length 1 in the metric loss; none: the loss's own.", default=None
    )
    identity_weight: float = setting(
        "Weight of the identity loss; 0: none.", NOT_NEGATIVE, default=1.0
    )
    label_smoothing: float = setting("Label smoothing of the identity loss.", default=0.1)
    softmax: str = setting(
        f"plain, or with a margin between cosines: {', '.join(MARGINS)}, of the identity loss.",
        partial(checks.one_of, ("plain", *MARGINS)),
        default="plain",
    )
    softmax_scale: float = setting("Of the cosines of a softmax with a margin.", default=30.0)
    softmax_margin: float | None = setting("none: the usual one of that softmax.", default=None)
    flip: bool = setting("Embed the mirror image too, when scoring and exported.", default=True)
    stripes: Stripes = field(default_factory=Stripes)
    parts: Parts = field(default_factory=Parts)
    pose: Pose = field(default_factory=Pose)
    attributes: Attributes = field(default_factory=Attributes)
    tracklets: Tracklets = field(default_factory=Tracklets)
    pretraining: Pretraining = field(default_factory=Pretraining)
    distillation: Distillation = field(default_factory=Distillation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric_weight == 0 and self.identity_weight == 0:
            raise InputError(
                "at least one loss has a positive weight: received metric_weight=0 and "
                "identity_weight=0"
            )
        if self.softmax != "plain":
            losses.MarginSoftmaxLoss(self.softmax, self.softmax_scale, self.softmax_margin)
        self._check_combination()
        for method in self.methods:
            method.check(self.settings)

    def _check_combination(self) -> None:
        """At most one method has an embedding of its own; what works on the neck's has none."""
        names = [name for name, method in self._by_name.items() if method.active and method.embeds]
        if len(names) > 1:
            raise InputError(
                f"{' and '.join(names)} each make the embedding: received all of them; choose one"
            )
        if names and self.softmax != "plain":
            raise InputError(
                "a softmax with a margin is of the neck's one classifier: received softmax="
                f"{self.softmax!r} beside {names[0]}; leave one out"
            )
        if names and self.embedding != "neck":
            raise InputError(
                f"{names[0]} have an embedding of their own: received embedding="
                f"{self.embedding!r}; leave it out"
            )

    @property
    def _by_name(self) -> dict[str, Method]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Method)}

    @property
    def methods(self) -> list[Method]:
        """Those that are active."""
        return [method for method in self._by_name.values() if method.active]

    @property
    def columns(self) -> set[str]:
        """What the methods need of the images: keypoints, attributes, tracklet."""
        return {column for method in self.methods for column in method.columns}

    @property
    def settings(self) -> dict[str, Any]:
        """All values by name, those of the methods too."""
        own = {one.name: getattr(self, one.name) for one in fields(self)}
        for name, method in self._by_name.items():
            del own[name]
            own |= dataclasses.asdict(method)
        return own

    def replace(self, **settings: Any) -> "Recipe":
        """The recipe with other values, of its own and of the methods, by their names.

        Raises:
            InputError: an unknown name, a value that cannot be, or methods that do not go together.
        """
        changed: dict[str, Any] = {}
        for name, method in self._by_name.items():
            known = {one.name for one in fields(method)}
            changed[name] = dataclasses.replace(
                method, **{key: settings.pop(key) for key in known & {*settings}}
            )
        for name in settings:
            checks.one_of(self.settings, setting=name)
        return dataclasses.replace(self, **changed, **settings)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def classifies(self) -> bool:
        """Whether any phase has an identity loss."""
        return self.identity_weight > 0 or self.pretraining.pretrain_epochs > 0

    @property
    def backbones(self) -> list[str]:
        """The backbone of each member; one, if nothing is said of members."""
        return self.distillation.backbones or [self.backbone]

    def loss_settings(self, gather: bool = False) -> LossSettings:
        """Return the settings from which losses are constructed; see `LossSettings`."""
        metric: dict[str, Any] = {
            "margin": self.margin if self.margin in (None, "soft") else float(self.margin),
            "distance": self.metric_distance,
            "normalize": self.normalize,
        }
        metric = {name: value for name, value in metric.items() if value is not None}
        return LossSettings(self.label_smoothing, self.identity_weight, metric, gather)

    def load_teacher(self, num_identities: int) -> "keras.Model | None":
        """Return the trained model that a method learns from; see `Method.load_teacher`."""
        loaded = [
            method.load_teacher(self.image_size, self.columns, num_identities)
            for method in self._by_name.values()
        ]
        return next((model for model in loaded if model is not None), None)

    @property
    def phases(self) -> list[tuple["Recipe", Phase]]:
        """Return the parts of the training, each with its own recipe.

        The whole on small images; the identity loss alone; the whole; the assignment to refined
        parts alone; the whole with refined parts. All but the third only if they have epochs.
        """
        main = self.replace(
            small_epochs=0, pretrain_epochs=0, induction_epochs=0, refinement_epochs=0
        )
        phases = [Phase({})]
        for method in self.methods:
            phases = method.phases(phases, self.settings)
        # Only the first phase begins with a frozen backbone.
        frozen = [self.freeze_epochs, *[0.0] * (len(phases) - 1)]
        return [
            (main.replace(**phase.changes, freeze_epochs=freeze), phase)
            for phase, freeze in zip(phases, frozen, strict=True)
        ]


# Batch-hard triplet and smoothed identity loss around a BN neck (Luo et al., Bag of Tricks,
# CVPRW 2019, arXiv:1903.07071), with a shorter, cosine schedule, and triplets of features of length
# 1: raw ones begin with a triplet loss above the identity loss, which pushes all features into one
# narrow cone, and cost 17 points of mAP in the same time.
_BOT = Recipe(
    backbone="mobilenetv2",
    weights="imagenet",
    height=128,
    width=64,
    epochs=24,
    learning_rate=7e-4,
    pooling="gem",
    normalize=True,
)

_MUTUAL = _BOT.replace(
    members="mobilenetv2,mobilenetv2", distillation="logits:1,distances:1", ramp_up=4.0
)

# Beside a triplet loss of the whole, without dropout and erasing: classifiers of parts alone learn
# too slowly for so few epochs.
_PCB = _BOT.replace(parts=4, part_dropout=0.0, label_smoothing=0.0, augment="flip")

RECIPES: dict[str, Recipe] = {
    "bot": _BOT,
    # The same by three roads, of 24 epochs each, for comparing them: a classifier alone, a
    # classifier whose features a metric loss then fine-tunes, and both losses together.
    "classification": _BOT.replace(metric_weight=0.0),
    "finetune_metric": _BOT.replace(pretrain_epochs=12, epochs=12, identity_weight=0.0),
    "joint": _BOT,
    # The best number: most epochs on small images, the last ones on images of four times the size.
    "strong": _BOT.replace(height=256, width=128, small_epochs=20, epochs=4, embedding="features"),
    # Two that learn from each other (Zhang et al., arXiv:1706.00384 and 1711.08184), with the
    # weights of the public reproductions, whose features are of length 1 as here (the 0.01 and
    # 0.001 of AlignedReID are for raw ones, whose squared distances are some thousand times
    # larger), and one that learns from a trained one, which `teacher` names.
    "mutual": _MUTUAL,
    "distill": _BOT.replace(distillation="logits:1", temperature=4.0),
    # Identity and triplet loss of the global features, and the triplet loss of aligned stripes
    # (Zhang et al., AlignedReID, 2017, arXiv:1711.08184); with two members, its mutual learning.
    "aligned": _BOT.replace(stripes=8),
    "aligned_mutual": _MUTUAL.replace(stripes=8),
    # Parts with a classifier each (Sun et al., PCB, ECCV 2018, arXiv:1711.09349), and then refined
    # by a learned assignment of pixels to parts.
    "pcb": _PCB,
    "pcb_rpp": _PCB.replace(epochs=12, induction_epochs=4, refinement_epochs=8),
    # Parts where the body points are (Wang et al., HOReID, CVPR 2020, arXiv:2003.08177); identity
    # and attributes together (Lin et al., Pattern Recognition 2019, arXiv:1703.07220; its factor of
    # 8 on the identity loss leaves the attributes untold after a short training, 1 does not); and
    # clips of tracklets (Gao and Nevatia, arXiv:1805.02104).
    "pose": _BOT.replace(pose=True, pooling="avg_max"),
    "attributes": _BOT.replace(attribute_weight=1.0),
    "tracklets": _BOT.replace(
        temporal="mean", num_identities_per_batch=8, num_instances=2, frames=4
    ),
    # From nothing on a CPU in a minute or two: the synthetic pedestrians.
    "tiny": Recipe(
        backbone="tiny",
        weights="none",
        height=64,
        width=32,
        epochs=20,
        learning_rate=2e-3,
        normalize=True,
        flip=False,
    ),
}


def get(name: str) -> Recipe:
    """The recipe of that name; an unknown name raises `InputError` and lists the known ones."""
    checks.one_of(sorted(RECIPES), recipe=name)
    return RECIPES[name]


def setting_fields() -> list[dataclasses.Field[Any]]:
    """The fields of all settings, those of the methods too, in their order."""
    found: list[dataclasses.Field[Any]] = []
    for one in fields(Recipe):
        if isinstance(one.type, type) and issubclass(one.type, Method):
            found += fields(one.type)
        else:
            found.append(one)
    return found


def defaults(name: str) -> str:
    """In words, the value of a setting in `bot`, and in the recipes that have another."""
    values = {recipe: RECIPES[recipe].settings[name] for recipe in RECIPES}
    usual = values["bot"]
    others: dict[str, list[str]] = {}
    for recipe, value in values.items():
        if value != usual:
            others.setdefault(_word(value), []).append(recipe)
    texts = [f"{value} of {', '.join(recipes)}" for value, recipes in others.items()]
    return "; ".join([_word(usual), *texts])


def _word(value: Any) -> str:
    words = {None: "none", "": "none", True: "true", False: "false"}
    if value is None or value == "" or isinstance(value, bool):
        return words[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
