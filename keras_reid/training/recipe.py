"""Recipe: all settings of one training run; every value is a flag of the same name."""

import dataclasses
import itertools
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_reid import checks, losses
from keras_reid.errors import InputError, invalid
from keras_reid.losses.registry import MARGINS, METRIC_LOSSES
from keras_reid.models.registry import BACKBONES, EMBEDDINGS, NECKS, POOLINGS
from keras_reid.training import methods
from keras_reid.training.methods.method import (
    Annotations,
    Factory,
    LossSettings,
    Method,
    Phase,
    Settings,
    setting,
)

if TYPE_CHECKING:
    import keras

NONE = Annotations()
SIDE = "[1, 4096]"  # pixels of an image
# Settings of the main phase, without phases before and after it.
MAIN = {"small_epochs": 0, "pretrain_epochs": 0, "induction_epochs": 0, "refinement_epochs": 0}


def _check_margin(margin: str | float) -> None:
    with suppress(ValueError):
        margin = float(margin)
    checks.margin(margin=margin)


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """Settings of one training run: of the optimization, and of the methods.

    The help of a field documents it. The fields of the methods are in
    `keras_reid.training.methods`. `replace` changes fields of both by name.

    >>> from keras_reid.training import RECIPES
    >>> recipe = RECIPES["bot"].replace(epochs=60, stripes=8)
    >>> recipe.epochs, recipe.stripes.stripes, recipe.image_size
    (60, 8, (128, 64))

    Raises:
        InputError: a value out of range, or methods that exclude each other.
    """

    backbone: str = setting(
        f"Backbone: {', '.join(BACKBONES)}, or a .keras file; see "
        "keras_reid.models.backbones.build."
    )
    weights: str = setting("Weights of the backbone: imagenet, none, or a .weights.h5 file.")
    height: int = setting("Height of the images in pixels.", interval=SIDE)
    width: int = setting("Width of the images in pixels.", interval=SIDE)
    epochs: int = setting("Number of training epochs.", least=1)
    learning_rate: float = setting("Highest learning rate of the schedule.", least=0)
    init_from: str = setting(
        "Run folder of a trained model. Its weights are the initial weights of all layers with the "
        "same name and shapes.",
        default="",
    )
    mixstyle: float = setting(
        "Probability that early layers mix the styles of a batch (MixStyle); 0: never.",
        interval="[0, 1]",
        default=0.0,
    )
    instance_norm: float = setting(
        "Fraction of the channels of early layers that get instance normalization; 0: none.",
        interval="[0, 1]",
        default=0.0,
    )
    pooling: str = setting(
        f"Pooling of the feature map: {', '.join(POOLINGS)}; gem is the generalized mean.",
        choices=POOLINGS,
        default="avg",
    )
    neck: str = setting(
        f"Layer before the classifier: {' or '.join(NECKS)}; bn is a batch normalization (BNNeck).",
        choices=NECKS,
        default="bn",
    )
    embedding: str = setting(
        "Embedding at test time: neck (output of the neck) or features (its input).",
        choices=EMBEDDINGS,
        default="neck",
    )
    last_stride: int = setting(
        "Stride of the last stage of a backbone: 1 for a finer feature map, or 2.", default=1
    )
    embedding_dim: int = setting(
        "Size of the embedding; 0: the size of the backbone's features.", least=0, default=0
    )
    num_identities_per_batch: int = setting(
        "Number P of identities in a batch of P x K images.", default=16
    )
    num_instances: int = setting("Number K of images of each identity in a batch.", default=4)
    camera_balanced: bool = setting(
        "Selection of the K images of an identity from as many cameras as possible.", default=False
    )
    augment: str = setting(
        "Augmentation: none, flip, crop (and flip) or default (flip, crop, erase), with any of "
        "color, grayscale and blur added by +, such as default+grayscale; see "
        "keras_reid.data.augment.",
        default="default",
    )
    schedule: str = setting("Learning-rate schedule: cosine, step or constant.", default="cosine")
    warmup: float = setting("Number of epochs of linear warm-up.", least=0, default=1.0)
    weight_decay: float = setting("Weight decay of AdamW; 0: plain Adam.", least=0, default=0.0)
    head_lr_multiplier: float = setting(
        "Factor of the learning rate of layers outside the backbone.",
        partial(checks.above, 0),
        default=1.0,
    )
    freeze_epochs: float = setting(
        "Number of first epochs with a frozen backbone.", least=0, default=0.0
    )
    ema_momentum: float = setting(
        "Momentum of the moving average of the weights, such as 0.999; 0: no average.",
        interval="[0, 1)",
        default=0.0,
    )
    metric_loss: str = setting(
        f"Loss of the features: {', '.join(METRIC_LOSSES)}.",
        choices=METRIC_LOSSES,
        default="triplet_hard",
    )
    metric_weight: float = setting("Weight of the metric loss; 0: none.", least=0, default=1.0)
    margin: str | float | None = setting(
        "Margin of the metric loss: a number, or soft for log(1 + exp(d+ - d-)), where d+ is the "
        "distance to a positive and d- to a negative. Not set: the margin of the loss.",
        _check_margin,
        default=None,
    )
    metric_distance: str | None = setting(
        "Distance of the metric loss: euclidean, squared_euclidean or cosine. Not set: that of the "
        "loss.",
        default=None,
    )
    normalize: bool | None = setting("L2 normalization in the metric loss.", default=None)
    identity_weight: float = setting("Weight of the identity loss; 0: none.", least=0, default=1.0)
    label_smoothing: float = setting("Label smoothing of the identity loss.", default=0.1)
    softmax: str = setting(
        f"Softmax of the identity loss: plain, or with a margin: {', '.join(MARGINS)}.",
        choices=("plain", *MARGINS),
        default="plain",
    )
    softmax_scale: float = setting("Scale of the cosines of a softmax with a margin.", default=30.0)
    softmax_margin: float | None = setting(
        "Margin of a softmax with a margin. Not set: the margin of its publication.", default=None
    )
    flip: bool = setting(
        "Sum of the embeddings of image and mirror image as embedding at test time.", default=True
    )
    sources: methods.Sources = field(default_factory=methods.Sources)
    stripes: methods.Stripes = field(default_factory=methods.Stripes)
    parts: methods.Parts = field(default_factory=methods.Parts)
    pose: methods.Pose = field(default_factory=methods.Pose)
    attributes: methods.Attributes = field(default_factory=methods.Attributes)
    tracklets: methods.Tracklets = field(default_factory=methods.Tracklets)
    pair_verification: methods.PairVerification = field(default_factory=methods.PairVerification)
    pretraining: methods.Pretraining = field(default_factory=methods.Pretraining)
    distillation: methods.Distillation = field(default_factory=methods.Distillation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.labeled or self.distillation.active):
            raise invalid("metric_weight", "positive if identity_weight is 0", 0)
        if self.softmax != "plain":
            losses.MarginSoftmaxLoss(self.softmax, self.softmax_scale, self.softmax_margin)
        self._check_methods()

    def _check_methods(self) -> None:
        """Raise for two methods with an embedding, or another value of a fixed setting."""
        active = {name: method for name, method in self._by_name.items() if method.active}
        embedding = [name for name, method in active.items() if method.embeds]
        if len(embedding) > 1:
            raise InputError(f"{' and '.join(embedding)} each define the embedding. Choose one.")
        for method in active.values():
            for name, value in method.fixed.items():
                if self.settings[name] != value:
                    rule = f"{'empty' if value == '' else value} with {fields(method)[0].name}"
                    raise invalid(name, rule, self.settings[name])

    @property
    def _by_name(self) -> dict[str, Method]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Method)}

    @property
    def methods(self) -> list[Method]:
        """The active methods."""
        return [method for method in self._by_name.values() if method.active]

    @property
    def labeled(self) -> bool:
        """True if a loss compares identities."""
        return self.identity_weight > 0 or self.metric_weight > 0

    @property
    def columns(self) -> set[str]:
        """Columns of the images that the methods require: keypoints, attributes, tracklet."""
        return {column for method in self.methods for column in method.columns}

    @property
    def settings(self) -> dict[str, Any]:
        """Values of all settings by name, including the settings of the methods."""
        values = dataclasses.asdict(self)
        for name in self._by_name:
            values |= values.pop(name)
        return values

    def replace(self, **settings: Any) -> "Recipe":
        """Return the recipe with other values, of its own and of the methods, by their names.

        Raises:
            InputError: an unknown name, an invalid value, or methods that exclude each other.
        """
        changed: dict[str, Any] = {}
        for name, method in self._by_name.items():
            own = {one.name for one in fields(method)} & {*settings}
            changed[name] = dataclasses.replace(method, **{key: settings.pop(key) for key in own})
        for name in settings:
            checks.one_of(self.settings, setting=name)
        return dataclasses.replace(self, **changed, **settings)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def unlabeled(self) -> bool:
        """True if a method trains on images without identity."""
        return any(method.unlabeled for method in self.methods)

    @property
    def backbones(self) -> list[str]:
        """Backbone of each member; a single backbone if there is no mutual learning."""
        return self.distillation.backbones or [self.backbone]

    def batches(self, factory: Factory) -> Factory:
        """Return the function of the images that makes batches, and its arguments.

        Args:
            factory: `data.pk_batches` and its other arguments, which precede those of the recipe.
        """
        names = ("num_identities_per_batch", "num_instances", "image_size", "augment")
        own = {name: getattr(self, name) for name in (*names, "camera_balanced")}
        factory = factory[0], {**own, **factory[1]}
        for method in self.methods:
            factory = method.batches(factory)
        return factory

    def evaluation(self, factory: Factory) -> Factory:
        """Return the function that makes the scoring callback, and its arguments."""
        factory = factory[0], {**factory[1], "flip": self.flip}
        for method in self.methods:
            factory = method.evaluation(factory)
        return factory

    def loss_settings(self, annotations: Annotations = NONE, gather: bool = False) -> LossSettings:
        """Return the settings for the losses of the methods.

        Args:
            annotations: columns of the training images.
            gather: compare over all replicas.
        """
        margin = self.margin if self.margin in (None, "soft") else float(self.margin)
        metric = {"margin": margin, "distance": self.metric_distance, "normalize": self.normalize}
        return LossSettings(self.label_smoothing, self.identity_weight, metric, annotations, gather)

    def load_teacher(self, num_identities: int) -> "keras.Model | None":
        """Return the trained teacher, or None; see `methods.Distillation.load_teacher`."""
        return self.distillation.load_teacher(self.image_size, self.columns, num_identities)

    @property
    def phases(self) -> list[tuple["Recipe", Phase]]:
        """The parts of the training run, each with its own recipe.

        Small images; only the identity loss; the main phase; only the refined assignment of parts;
        the whole model with refined parts. All phases except the main phase are optional.
        """
        main = self.replace(**MAIN)
        phases = [Phase({})]
        for method in self.methods:
            phases = method.phases(phases, self.settings)
        # Only the first phase begins with a frozen backbone.
        frozen = [self.freeze_epochs, *[0.0] * (len(phases) - 1)]
        return [
            (main.replace(**phase.changes, freeze_epochs=freeze), phase)
            for phase, freeze in zip(phases, frozen, strict=True)
        ]


def setting_fields() -> list[dataclasses.Field[Any]]:
    """Return the fields of all settings, with those of the methods, in their order."""
    own = ((fields(one.type) if is_dataclass(one.type) else (one,)) for one in fields(Recipe))
    return [*itertools.chain(*own)]
