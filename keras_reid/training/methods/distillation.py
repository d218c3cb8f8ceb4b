"""Mutual learning of several models, and distillation from a trained one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_reid import checks, models, training
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.losses.registry import DISTILLATION_LOSSES
from keras_reid.training.methods.method import Factory, LossSettings, Method, setting
from keras_reid.training.registry import AVERAGES, UPDATES

if TYPE_CHECKING:
    import keras

INPUTS = {"images", "keypoints"}  # of models


@dataclass(frozen=True, kw_only=True)
class Distillation(Method):
    """`Σ weight · distillation`, of the distances of the metric loss."""

    members: str = setting(
        "Backbones, separated by commas, of models that learn from each other; empty: one model "
        "of the backbone above.",
        default="",
    )
    teacher: str = setting("Run folder of a trained teacher; empty: none.", default="")
    distillation: str = setting(
        f"Distillation losses, of {', '.join(DISTILLATION_LOSSES)}, each with its weight, such as "
        "logits:1,distances:1.",
        default="",
    )
    temperature: float = setting(
        "Temperature of the distillation of logits.", partial(checks.above, 0), default=1.0
    )
    edges: str = setting(
        "Edges from teachers to students: all, ring, or pairs: member1>member2,teacher>member1.",
        default="all",
    )
    update: str = setting(
        "simultaneous, or sequential: a member predicts again after its step, for the next one.",
        choices=UPDATES,
        default="simultaneous",
    )
    average: str = setting(
        "Combination of the teachers of a member: mean, sum, or ensemble (DML_e).",
        choices=AVERAGES,
        default="mean",
    )
    ramp_up: float = setting(
        "Epochs of linear increase of the distillation weights.", least=0, default=0.0
    )
    per_member_augmentation: bool = setting(
        "Augment the images separately for each member.", default=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.weights, self.graph  # raise if they cannot be parsed

    @property
    def active(self) -> bool:
        return bool(self.distillation)

    @property
    def backbones(self) -> list[str]:
        """Backbone of each member; empty without members."""
        return _words(self.members)

    @property
    def several(self) -> bool:
        """True if models learn from each other."""
        return len(self.backbones) > 1

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
        pairs = [tuple(part.strip() for part in word.split(">")) for word in _words(self.edges)]
        if any(len(pair) != 2 for pair in pairs):
            raise invalid("edges", "all, ring, or pairs such as member1>member2", self.edges)
        return [(teacher, student) for teacher, student in pairs]

    def batches(self, factory: Factory) -> Factory:
        views = len(self.backbones) if self.per_member_augmentation and self.several else None
        return factory[0], {**factory[1], "views": views}

    def learner(
        self,
        members: "Sequence[keras.Model]",
        teacher: "keras.Model | None",
        steps_per_epoch: int,
        settings: LossSettings,
    ) -> "tuple[keras.Model, dict[str, Any]] | None":
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
        """Return the arguments of `compile` for the distillation."""
        arguments: dict[str, dict[str, Any]] = {
            "logits": {"temperature": self.temperature},
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
        if self.active != bool(self.teacher or self.several):
            raise InputError(
                "Distillation requires `distillation` and a teacher (a run folder) or several "
                f"members, got distillation={self.distillation!r}, teacher={self.teacher!r} and "
                f"members={self.members!r}. Give them, for example distillation=logits:1, or none.",
                "distillation",
            )
        if not self.teacher:
            return None
        model = training.Run(self.teacher).load_model()
        if models.is_pair_verifier(model):
            raise models.no_embeddings(self.teacher)
        inputs = {"images", *columns} & INPUTS
        student = _described(image_size, inputs)
        teacher = _described(models.image_size(model), models.input_names(model))
        if teacher != student:
            raise invalid("teacher", f"a model of {student}", Shown(f"{self.teacher} of {teacher}"))
        classes = model.output["logits"].shape[-1] if "logits" in model.output else "no"
        if "logits" in self.weights and classes != num_identities:
            fix = "Distill ranks or distances, or give a teacher trained on these images."
            received = Shown(f"{classes} of {self.teacher}")
            raise invalid("teacher", f"trained on {num_identities} identities", received, fix)
        return model


def _described(size: tuple[int, int], inputs: set[str]) -> str:
    return f"{' and '.join(sorted(inputs))} of {size[0]}×{size[1]} pixels"


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
