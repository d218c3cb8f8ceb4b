"""Named sets of defaults for `train.py`; every value is a flag of the same name."""

from dataclasses import dataclass, field, replace
from typing import Any

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.layers.stripes import STRIPE_POOLINGS
from keras_reid.layers.temporal import TEMPORAL
from keras_reid.losses import DISTILLATION_LOSSES, METRIC_LOSSES, MarginSoftmaxLoss
from keras_reid.losses.identity import MARGINS
from keras_reid.models.heads import ORDERS
from keras_reid.models.trunk import EMBEDDINGS
from keras_reid.training.mutual import AVERAGES, UPDATES


def _value(meaning: str, **default: Any) -> Any:
    return field(metadata={"help": meaning}, **default)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training consists of; the fields say themselves what they mean."""

    backbone: str = _value("Name or .keras file, see keras_reid.models.backbones.build.")
    weights: str = _value("imagenet, none, or a .weights.h5 file of the backbone.")
    height: int = _value("Height of the images in pixels.")
    width: int = _value("Width of the images in pixels.")
    epochs: int = _value("How often every image is seen.")
    learning_rate: float = _value("The highest rate of the schedule.")
    start: str = _value(
        "Run folder of a trained model to start from: layers of the same name and shapes take its "
        "weights; empty: none.",
        default="",
    )
    mixstyle: float = _value(
        "Probability with which the styles of a batch's images are mixed in early layers "
        "(MixStyle); 0: never.",
        default=0.0,
    )
    pooling: str = _value("avg, max or gem (generalized mean).", default="avg")
    neck: str = _value("bn (BNNeck) or none.", default="bn")
    embedding: str = _value(
        "What is compared at test time: what comes out of the neck, or features, what goes in.",
        default="neck",
    )
    last_stride: int = _value("1 keeps a finer last feature map; 2 is as published.", default=1)
    embedding_width: int = _value("Width of the embedding; 0 keeps the backbone's.", default=0)
    identities: int = _value("P, identities in a training batch of P x K images.", default=16)
    instances: int = _value("K, images of each identity in a training batch.", default=4)
    spread: bool = _value(
        "The K images of an identity in a batch are of as many cameras as possible.", default=False
    )
    augment: str = _value(
        "none, flip or default (flip, crop, erase), with any of colour, grayscale and blur added "
        "by +, such as default+grayscale; see keras_reid.data.augment.",
        default="default",
    )
    schedule: str = _value("cosine, step or constant.", default="cosine")
    warmup: float = _value("Epochs over which the rate rises linearly.", default=1.0)
    weight_decay: float = _value("Of AdamW; 0 is plain Adam.", default=0.0)
    new_rate: float = _value(
        "Factor of the rate for layers that are not the backbone's, above 0.", default=1.0
    )
    freeze: float = _value("Epochs at the start in which the backbone stays as it is.", default=0.0)
    ema: float = _value("Momentum of the moving average of the weights; 0: none.", default=0.0)
    metric_loss: str = _value(
        f"{', '.join(METRIC_LOSSES)}: the loss of the features.", default="triplet_hard"
    )
    metric_weight: float = _value("Weight of the metric loss; 0: none.", default=1.0)
    margin: float | None = _value("Of the metric loss; none: the loss's own.", default=None)
    soft_margin: bool = _value(
        "log(1 + exp(d+ - d-)) instead of a margin, in the metric losses.", default=False
    )
    distance: str | None = _value(
        "euclidean, squared_euclidean or cosine, of the metric loss; none: the loss's own.",
        default=None,
    )
    normalize: bool | None = _value(
        "Compare features of length 1 in the metric loss; none: the loss's own.", default=None
    )
    identity_weight: float = _value("Weight of the identity loss; 0: none.", default=1.0)
    smoothing: float = _value("Label smoothing of the identity loss.", default=0.1)
    softmax: str = _value(
        f"plain, or with a margin between cosines: {', '.join(MARGINS)}, of the identity loss.",
        default="plain",
    )
    softmax_scale: float = _value("Of the cosines of a softmax with a margin.", default=30.0)
    softmax_margin: float | None = _value("none: the usual one of that softmax.", default=None)
    small_epochs: int = _value(
        "Epochs on images of half the height and width, before all others, which cost a quarter.",
        default=0,
    )
    pretrain: int = _value(
        "Epochs of the identity loss alone, before those of the weights above.", default=0
    )
    stripes: int = _value(
        "Stripes of the local features, which the aligned triplet loss trains; 0: none.", default=0
    )
    stripe_width: int = _value("Width of a local feature.", default=128)
    stripe_pooling: str = _value("avg or max, along the stripes.", default="avg")
    stripe_order: str = _value(
        "conv_bn_relu after the pooling, or bn_relu_conv with the first two before it.",
        default="conv_bn_relu",
    )
    stripe_normalize: bool = _value("Local features of length 1.", default=False)
    local_weight: float = _value("Weight of the aligned triplet loss.", default=1.0)
    parts: int = _value(
        "Parts with a classifier each (PCB), which take the place of neck and classifier; 0: none.",
        default=0,
    )
    part_width: int = _value("Width of the feature of a part.", default=256)
    part_dropout: float = _value("Dropout of the features of the parts.", default=0.5)
    induction: int = _value(
        "Epochs, after the others, in which only the refined assignment of pixels to parts (RPP) "
        "is trained; 0: none.",
        default=0,
    )
    refinement: int = _value("Epochs, after those, of the whole with refined parts.", default=0)
    pose: bool = _value("Parts where the body points are (HOReID).", default=False)
    pose_width: int = _value("Width of such a part.", default=256)
    pose_weight: float = _value("Weight of the identity loss of all these parts.", default=1.0)
    attribute_weight: float = _value(
        "Weight of the mean loss of the attributes; 0: none.", default=0.0
    )
    temporal: str = _value(
        f"How the frames of a tracklet are pooled: {', '.join(TEMPORAL)}; empty: images, no "
        "tracklets.",
        default="",
    )
    frames: int = _value("Frames of a clip of a tracklet, of which a batch has P x K.", default=4)
    frame_weight: float = _value(
        "Weight of the losses of single frames beside those of clips; 0: none.", default=1.0
    )
    members: str = _value(
        "Backbones, separated by commas, of models that learn from each other; empty: one model "
        "of the backbone above.",
        default="",
    )
    teacher: str = _value("Run folder of a trained model to learn from; empty: none.", default="")
    distillation: str = _value(
        f"What is learned from the others, of {', '.join(DISTILLATION_LOSSES)}, each with its "
        "weight: logits:1,distances:1.",
        default="",
    )
    temperature: float = _value("Of the distillation of logits.", default=1.0)
    edges: str = _value(
        "Who learns from whom: all, ring, or pairs: member1>member2,teacher>member1.", default="all"
    )
    update: str = _value(
        "simultaneous, or sequential: who has stepped predicts anew for the next member.",
        default="simultaneous",
    )
    average: str = _value(
        "Over those whom a member learns from: mean, sum, or ensemble (DML_e).", default="mean"
    )
    ramp_up: float = _value(
        "Epochs over which the weights of the distillation rise linearly.", default=0.0
    )
    own_views: bool = _value("Augment the images for each member anew.", default=False)
    flip: bool = _value("Embed the mirror image too, when scoring and exported.", default=True)

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_words()
        self._check_methods()

    def _check_numbers(self) -> None:
        least = {
            "epochs": 1,
            "height": 1,
            "width": 1,
            "embedding_width": 0,
            "learning_rate": 0,
            "warmup": 0,
            "weight_decay": 0,
            "freeze": 0,
            "metric_weight": 0,
            "identity_weight": 0,
            "pretrain": 0,
            "small_epochs": 0,
            "stripes": 0,
            "local_weight": 0,
            "parts": 0,
            "induction": 0,
            "refinement": 0,
            "ramp_up": 0,
            "pose_width": 1,
            "pose_weight": 0,
            "attribute_weight": 0,
            "frames": 1,
            "frame_weight": 0,
        }
        for name, bound in least.items():
            checks.at_least(bound, **{name: getattr(self, name)})
        checks.above(0, new_rate=self.new_rate)
        checks.within("[0, 1]", "a probability", mixstyle=self.mixstyle)
        checks.within("[0, 1)", "a momentum, of which 0.999 is usual", ema=self.ema)
        if self.margin is not None:
            checks.at_least(
                0, "or none, the loss's own; softplus is soft_margin", margin=self.margin
            )
            if self.soft_margin:
                raise InputError(
                    "a soft margin has no width: received soft_margin and margin="
                    f"{self.margin}; give one of them",
                    "soft_margin",
                )
        if self.metric_weight == 0 and self.identity_weight == 0:
            raise InputError(
                "at least one loss has a positive weight: received metric_weight=0 and "
                "identity_weight=0"
            )

    def _check_words(self) -> None:
        for name, known in (
            ("metric_loss", METRIC_LOSSES),
            ("update", UPDATES),
            ("average", AVERAGES),
            ("embedding", EMBEDDINGS),
            ("softmax", ("plain", *MARGINS)),
            ("stripe_order", ORDERS),
            ("stripe_pooling", STRIPE_POOLINGS),
        ):
            checks.one_of(known, **{name: getattr(self, name)})
        if self.softmax != "plain":
            MarginSoftmaxLoss(self.softmax, self.softmax_scale, self.softmax_margin)
        _ = self.distillation_weights, self.graph

    def _check_methods(self) -> None:
        if self.small_epochs and (self.teacher or min(self.image_size) < 2):
            raise InputError(
                "images of half the size have at least a pixel, and no teacher, which sees the same"
                f" images: received small_epochs={self.small_epochs} with {self.height}×"
                f"{self.width} pixels and teacher={self.teacher!r}; leave one out"
            )
        if (self.induction or self.refinement) and not self.parts:
            raise InputError(
                f"what is refined are parts: received induction={self.induction} and refinement="
                f"{self.refinement} with parts=0; give the number of parts"
            )
        instead = {"parts": self.parts, "pose": self.pose, "attributes": self.attribute_weight}
        chosen = [name for name, value in instead.items() if value]
        if len(chosen) > 1:
            raise InputError(
                f"{' and '.join(chosen)} each make the embedding: received all of them; choose one"
            )
        if self.softmax != "plain" and (chosen or self.temporal):
            raise InputError(
                "a softmax with a margin is of the neck's one classifier: received softmax="
                f"{self.softmax!r} beside {' and '.join(chosen) or 'tracklets'}; leave one out"
            )
        if self.embedding != "neck" and (chosen or self.temporal):
            raise InputError(
                f"{' and '.join(chosen) or 'tracklets'} have an embedding of their own: received "
                f"embedding={self.embedding!r}; leave it out"
            )
        if self.temporal:
            checks.one_of(TEMPORAL, temporal=self.temporal)
        if self.temporal and (
            chosen or self.stripes or len(self.backbones) > 1 or self.distillation
        ):
            raise InputError(
                "tracklets are learned by one model without stripes, parts, pose and attributes: "
                f"received temporal={self.temporal!r} beside them"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def classifies(self) -> bool:
        """Whether any phase has an identity loss."""
        return self.identity_weight > 0 or self.pretrain > 0

    @property
    def backbones(self) -> list[str]:
        """The backbone of each member; one, if nothing is said of members."""
        return _words(self.members) or [self.backbone]

    @property
    def distillation_weights(self) -> dict[str, float]:
        """The weights of what is distilled, by name."""
        weights = {}
        for word in _words(self.distillation):
            name, _, weight = word.partition(":")
            if name not in DISTILLATION_LOSSES or name in weights or not _is_positive(weight):
                raise InputError(
                    f"distillation is a list of {', '.join(DISTILLATION_LOSSES)}, each once and "
                    "with a weight above 0, such as logits:1,distances:1: received "
                    f"{self.distillation!r}"
                )
            weights[name] = float(weight)
        return weights

    @property
    def graph(self) -> str | list[tuple[str, str]]:
        """The edges as `MutualLearner` takes them."""
        if ">" not in self.edges:
            return self.edges
        pairs = [tuple(part.strip() for part in word.split(">")) for word in _words(self.edges)]
        if any(len(pair) != 2 for pair in pairs):
            raise InputError(
                "edges are all, ring, or pairs such as member1>member2,member2>member1: received "
                f"{self.edges!r}"
            )
        return [(teacher, student) for teacher, student in pairs]

    @property
    def phases(self) -> list["Phase"]:
        """What is trained one after the other.

        The whole on small images; the identity loss alone; the whole; the assignment to refined
        parts alone; the whole with refined parts. All but the third only if they have epochs.
        """
        main = replace(self, small_epochs=0, pretrain=0, induction=0, refinement=0)
        warm = replace(main, freeze=0.0)  # only the first phase begins with a frozen backbone
        phases = []
        if self.small_epochs:
            height, width = self.height // 2, self.width // 2
            small = replace(main, epochs=self.small_epochs, height=height, width=width)
            phases.append(Phase(small))
        if self.pretrain:
            alone = replace(
                warm if phases else main, metric_weight=0.0, local_weight=0.0, identity_weight=1.0
            )
            phases.append(Phase(replace(alone, epochs=self.pretrain)))
        phases.append(Phase(warm if phases else main))
        if self.induction:
            induction = replace(warm, epochs=self.induction)
            phases.append(Phase(induction, refined=True, only_assignment=True))
        if self.refinement:
            phases.append(Phase(replace(warm, epochs=self.refinement), refined=True))
        return phases


@dataclass(frozen=True)
class Phase:
    """A part of a training: by which recipe, with refined parts or not, and what is trained.

    Attributes:
        recipe: of this phase, which has no other phases.
        refined: pixels are assigned to parts by what was learned, see `layers.PartPooling`.
        only_assignment: nothing else is trained.
    """

    recipe: Recipe
    refined: bool = False
    only_assignment: bool = False


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


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

_MUTUAL = replace(
    _BOT, members="mobilenetv2,mobilenetv2", distillation="logits:1,distances:1", ramp_up=4.0
)

# Beside a triplet loss of the whole, without dropout and erasing: classifiers of parts alone learn
# too slowly for so few epochs.
_PCB = replace(_BOT, parts=4, part_dropout=0.0, smoothing=0.0, augment="flip")

RECIPES: dict[str, Recipe] = {
    "bot": _BOT,
    # The same by three roads, of 24 epochs each, for comparing them: a classifier alone, a
    # classifier whose features a metric loss then fine-tunes, and both losses together.
    "classification": replace(_BOT, metric_weight=0.0),
    "finetune_metric": replace(_BOT, pretrain=12, epochs=12, identity_weight=0.0),
    "joint": _BOT,
    # The best number: most epochs on small images, the last ones on images of four times the size.
    "strong": replace(_BOT, height=256, width=128, small_epochs=20, epochs=4, embedding="features"),
    # Two that learn from each other (Zhang et al., arXiv:1706.00384 and 1711.08184), with the
    # weights of the public reproductions, whose features are of length 1 as here (the 0.01 and
    # 0.001 of AlignedReID are for raw ones, whose squared distances are some thousand times
    # larger), and one that learns from a trained one, which `teacher` names.
    "mutual": _MUTUAL,
    "distill": replace(_BOT, distillation="logits:1", temperature=4.0),
    # Identity and triplet loss of the global features, and the triplet loss of aligned stripes
    # (Zhang et al., AlignedReID, 2017, arXiv:1711.08184); with two members, its mutual learning.
    "aligned": replace(_BOT, stripes=8),
    "aligned_mutual": replace(_MUTUAL, stripes=8),
    # Parts with a classifier each (Sun et al., PCB, ECCV 2018, arXiv:1711.09349), and then refined
    # by a learned assignment of pixels to parts.
    "pcb": _PCB,
    "pcb_rpp": replace(_PCB, epochs=12, induction=4, refinement=8),
    # Parts where the body points are (Wang et al., HOReID, CVPR 2020, arXiv:2003.08177); identity
    # and attributes together (Lin et al., Pattern Recognition 2019, arXiv:1703.07220; its factor of
    # 8 on the identity loss leaves the attributes untold after a short training, 1 does not); and
    # clips of tracklets (Gao and Nevatia, arXiv:1805.02104).
    "pose": replace(_BOT, pose=True, pooling="avg_max"),
    "attributes": replace(_BOT, attribute_weight=1.0),
    "tracklets": replace(_BOT, temporal="mean", identities=8, instances=2, frames=4),
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
