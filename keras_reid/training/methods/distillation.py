"""Mutual learning of several models, and distillation from a trained one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_reid import checks, models, training
from keras_reid.errors import Shown, counted, invalid
from keras_reid.losses.registry import DISTILLATION_LOSSES
from keras_reid.training.methods.method import (
    Annotations,
    Factory,
    LossSettings,
    Method,
    Term,
    setting,
)
from keras_reid.training.registry import AVERAGES, UPDATES
from keras_reid.training.teachers import TEACHER, with_embeddings

if TYPE_CHECKING:
    import keras

    from keras_reid.data import ReidDataset

INPUTS = {"images", "keypoints"}  # inputs of models
# Methods with other batches or models than those of stored embeddings.
FIXED = {"members": "", "temporal": "", "parts": 0, "pose": False, "attribute_weight": 0.0}
FIXED |= {"pretrain_epochs": 0, "small_epochs": 0, "camera_balanced": False}


@dataclass(frozen=True, kw_only=True)
class Distillation(Method):
    """`Σ weight · loss`, over the losses that `distillation` names.

    With `views_per_round` or `teacher_embeddings`, the embeddings of the teacher are stored, and
    are labels of the batches. Otherwise teacher and members predict the same batches. Then the loss
    `distances` has the distance and the normalization of the metric loss.
    """

    distillation: str = setting(
        f"Distillation losses ({', '.join(DISTILLATION_LOSSES)}) with their weights, such as "
        "logits:1,distances:1. Stored embeddings (views_per_round, teacher_embeddings) have no "
        "logits.",
        default="",
    )
    members: str = setting(
        "Backbones of models that learn from each other, separated by commas. Not set: one model.",
        default="",
    )
    teacher: str = setting(
        "Trained teacher. With views_per_round: any embedder of keras_reid.inference.load. "
        "Without: a run folder with the image size of the student.",
        default="",
    )
    teacher_embeddings: str = setting(
        "File with the teacher's embeddings of the images, instead of a teacher: arrays embedding "
        "and path in .npz, or a folder of .npy files.",
        default="",
    )
    views_per_round: int = setting(
        "Number of augmented views in a round. The teacher embeds each view once. A view "
        "takes 3 x height x width bytes of disk. 0: the teacher predicts each batch.",
        least=0,
        default=0,
    )
    round_epochs: int = setting(
        "Number of epochs on the views of a round, before new views are made.", least=1, default=4
    )
    views_dir: str = setting(
        "Folder that keeps the views of all rounds. Empty: the run folder, which keeps one round.",
        default="",
    )
    temperature: float = setting(
        "Temperature of the distillation of logits.", partial(checks.above, 0), default=1.0
    )
    edges: str = setting(
        "Edges from teachers to students: all, ring, or pairs such as "
        "member1>member2,teacher>member1.",
        default="all",
    )
    update: str = setting(
        "Order of the steps of members: simultaneous, or sequential (after its step, a member "
        "predicts the batch again, and the next members learn from that).",
        choices=UPDATES,
        default="simultaneous",
    )
    average: str = setting(
        "Combination of several teachers: mean or sum of their losses, or ensemble (one loss with "
        "their joint output; DML_e).",
        choices=AVERAGES,
        default="mean",
    )
    ramp_up: float = setting(
        "Number of epochs of linear increase of the distillation weights.",
        least=0,
        default=0.0,
    )
    per_member_augmentation: bool = setting(
        "Separate augmentation of the images for each member.", default=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = self.weights  # raises if they cannot be parsed
        if self.offline and ("logits" in weights or not weights):
            rule = "cosine, distances or ranks, with their weights, for stored embeddings"
            fix = "Write cosine:4,distances:40, or set views_per_round to 0."
            raise invalid("distillation", rule, self.distillation, fix)

    @property
    def active(self) -> bool:
        return bool(self.distillation)

    @property
    def offline(self) -> bool:
        """True if the embeddings of the teacher are stored."""
        return bool(self.views_per_round or self.teacher_embeddings)

    @property
    def unlabeled(self) -> bool:
        return self.offline

    @property
    def uses_views(self) -> bool:
        """True if views are made, which a teacher embeds."""
        return bool(self.views_per_round and not self.teacher_embeddings)

    @property
    def fixed(self) -> Mapping[str, Any]:
        return FIXED if self.offline else {}

    @property
    def backbones(self) -> list[str]:
        """Backbone of each member; empty if there are no members."""
        return _words(self.members)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the distillation losses by name."""
        words = [word.partition(":") for word in _words(self.distillation)]
        try:
            weights = {name: float(weight) for name, _, weight in words}
        except ValueError:
            weights = {}
        valid = {*weights} <= {*DISTILLATION_LOSSES} and len(weights) == len(words)
        if not valid or not all(0 < weight < float("inf") for weight in weights.values()):
            rule = f"a list of {', '.join(DISTILLATION_LOSSES)}, each once with a positive weight"
            raise invalid("distillation", rule, self.distillation, "Write logits:1,distances:1.")
        return weights

    @property
    def graph(self) -> str | list[tuple[str, str]]:
        """Edges in the form of `MutualLearner`."""
        if ">" not in self.edges:
            return self.edges
        pairs = (word.partition(">") for word in _words(self.edges))
        return [(teacher.strip(), student.strip()) for teacher, _, student in pairs]

    def dataset(self, dataset: "ReidDataset") -> "ReidDataset":
        if not self.teacher_embeddings or dataset.train is None:
            return dataset
        return replace(dataset, train=with_embeddings(dataset.train, self.teacher_embeddings))

    def check_labels(self, annotations: Annotations) -> None:
        """Raise if distillation needs embeddings of a teacher as labels, and they are missing."""
        if self.offline and not annotations.teacher:
            rule = "a trained model for distillation with views"
            fix = "Set teacher or teacher_embeddings."
            raise invalid("teacher", rule, self.teacher, fix)

    def view_steps(self, groups: tuple[int, int]) -> int:
        """Return the number of batches in an epoch on views; 0 if there are no views."""
        size = groups[0] * groups[1]
        if self.uses_views:
            fix = "This is the size of a batch."
            checks.at_least(size, fix, views_per_round=self.views_per_round)
        return self.views_per_round // size if self.uses_views else 0

    def extended(self, model: "keras.Model", annotations: Annotations) -> "keras.Model":
        return models.with_projection(model, annotations.teacher) if self.offline else model

    def terms(self, terms: list[Term], settings: LossSettings) -> list[Term]:
        if not self.offline:
            return terms
        # Unlabeled images have no class: see `training.views.with_class_labels`.
        own = [
            term._replace(loss=_with(term.loss, label="class")) if term.output == "logits" else term
            for term in terms
        ]
        stored: dict[str, dict[str, Any]] = {
            "cosine": {},
            "distances": {"normalize": True, "gather": settings.gather},
            "ranks": {"gather": settings.gather},
        }
        for name, weight in self.weights.items():
            output = models.PROJECTION if name == "cosine" else "embedding"
            loss = DISTILLATION_LOSSES[name](**stored[name], label=TEACHER)
            own.append(Term(output, loss, weight))
        return own

    def batches(self, factory: Factory) -> Factory:
        views = len(self.backbones) if self.per_member_augmentation else 0
        return factory[0], {**factory[1], "views": views if views > 1 else None}

    def learner(
        self,
        members: "Sequence[keras.Model]",
        teacher: "keras.Model | None",
        steps_per_epoch: int,
        settings: LossSettings,
    ) -> "tuple[keras.Model, dict[str, Any]]":
        """Return a model that trains the members in `fit`, and its arguments of `compile`.

        Args:
            members: models to train.
            teacher: trained teacher, or None.
            steps_per_epoch: number of steps of an epoch.
            settings: settings for the losses.

        Returns:
            The only member itself, if nothing is distilled.
        """
        if self.offline or not self.active:
            return members[0], {}
        ramp_up = round(steps_per_epoch * self.ramp_up)
        if teacher is not None and len(members) == 1:
            learner = training.Distiller(teacher, members[0], ramp_up)
        else:
            teachers = [] if teacher is None else [teacher]
            learner = training.MutualLearner(
                members, self.graph, teachers, self.update, self.average, ramp_up
            )
        return learner, self.compile_arguments(settings)

    def compile_arguments(self, settings: LossSettings) -> dict[str, Any]:
        """Return the arguments `distillation_loss` and `distillation_weights` of `compile`."""
        arguments: dict[str, dict[str, Any]] = {
            "logits": {"temperature": self.temperature},
            "cosine": {},
            "distances": settings.of_metric("distance", "normalize"),
            "ranks": {"gather": settings.gather},
        }
        losses: dict[str, Any] = {}
        weights: dict[str, Any] = {}
        for name, weight in self.weights.items():
            loss = DISTILLATION_LOSSES[name](**arguments[name])
            losses.setdefault(loss.output, []).append(loss)
            weights.setdefault(loss.output, []).append(weight)
        return {"distillation_loss": losses, "distillation_weights": weights}

    def load_teacher(
        self, image_size: tuple[int, int], columns: set[str], num_identities: int
    ) -> "keras.Model | None":
        """Return the trained teacher, or None.

        Args:
            image_size: (height, width) of the images of the student.
            columns: columns of the images that the student reads.
            num_identities: number of identities of the images.

        Raises:
            InputError: only one of teacher and distillation is set, or the teacher is for other
                images or identities.
        """
        if self.offline:
            return None
        if self.active != bool(self.teacher or len(self.backbones) > 1):
            rule = "set if and only if there is a teacher or several members"
            both = "Leave it empty, or set teacher or members."
            fix = both if self.active else "Write logits:1,distances:1."
            raise invalid("distillation", rule, self.distillation, fix)
        if not self.teacher:
            return None
        model = training.Run(self.teacher).load_model()
        if models.is_pair_verifier(model):
            raise models.no_embeddings(self.teacher)
        student = _described(image_size, {"images", *columns} & INPUTS, num_identities)
        classes = model.output["logits"].shape[-1] if "logits" in model.output else 0
        if "logits" not in self.weights:
            classes = num_identities  # not compared
        teacher = _described(models.image_size(model), models.input_names(model), classes)
        if teacher != student:
            fix = "If only the identities differ, distill ranks or distances, not logits."
            received = Shown(f"{self.teacher} of {teacher}")
            raise invalid("teacher", f"a model of {student}", received, fix)
        return model


def _described(size: tuple[int, int], inputs: set[str], num_identities: int) -> str:
    pixels = f"{' and '.join(sorted(inputs))} of {size[0]}×{size[1]} pixels"
    return f"{pixels} and {counted(num_identities, 'identity')}"


def _with(loss: Any, **arguments: Any) -> Any:
    return type(loss).from_config({**loss.get_config(), **arguments})


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
