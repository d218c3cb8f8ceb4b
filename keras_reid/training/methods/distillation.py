"""Models that learn from each other, or from a trained one (mutual learning, distillation)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keras_reid import checks, models, training
from keras_reid.errors import InputError
from keras_reid.losses.registry import DISTILLATION_LOSSES
from keras_reid.training.methods.method import LossSettings, Method, setting
from keras_reid.training.registry import AVERAGES, UPDATES

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Distillation(Method):
    """`Σ weight · distillation`, of the distances that the metric loss compares."""

    members: str = setting(
        "Backbones, separated by commas, of models that learn from each other; empty: one model "
        "of the backbone above.",
        default="",
    )
    teacher: str = setting("Run folder of a trained model to learn from; empty: none.", default="")
    distillation: str = setting(
        f"What is learned from the others, of {', '.join(DISTILLATION_LOSSES)}, each with its "
        "weight: logits:1,distances:1.",
        default="",
    )
    temperature: float = setting(
        "Of the distillation of logits.", partial(checks.above, 0), default=1.0
    )
    edges: str = setting(
        "Who learns from whom: all, ring, or pairs: member1>member2,teacher>member1.", default="all"
    )
    update: str = setting(
        "simultaneous, or sequential: who has stepped predicts anew for the next member.",
        partial(checks.one_of, UPDATES),
        default="simultaneous",
    )
    average: str = setting(
        "Over those whom a member learns from: mean, sum, or ensemble (DML_e).",
        partial(checks.one_of, AVERAGES),
        default="mean",
    )
    ramp_up: float = setting(
        "Epochs over which the weights of the distillation rise linearly.",
        partial(checks.at_least, 0),
        default=0.0,
    )
    per_member_augmentation: bool = setting(
        "Augment the images for each member anew.", default=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.weights, self.graph  # which refuse what they cannot read

    @property
    def active(self) -> bool:
        return bool(self.distillation)

    @property
    def backbones(self) -> list[str]:
        """The backbone of each member; empty if nothing is said of members."""
        return _words(self.members)

    @property
    def several(self) -> bool:
        """Whether models learn from each other."""
        return len(self.backbones) > 1

    @property
    def weights(self) -> dict[str, float]:
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

    def batches(self, make: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        views = len(self.backbones) if self.per_member_augmentation and self.several else None
        return make, {**arguments, "views": views}

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
        return learner, self._distilled(settings)

    def _distilled(self, settings: LossSettings) -> dict[str, Any]:
        """Return the arguments of `compile` for what is distilled."""
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
                "models learn from a teacher or from each other by distillation: received "
                f"distillation={self.distillation!r}, teacher={self.teacher!r} and members="
                f"{self.members!r}; give distillation=logits:1, say, and a teacher (the run folder "
                "of a trained model) or several members, or none of them"
            )
        if not self.teacher:
            return None
        model = training.Run(self.teacher).load_model()
        seen = models.image_size(model)
        if seen != image_size:
            raise InputError(
                f"teacher and student see the same images: the teacher {self.teacher!r} sees "
                f"{seen[0]}×{seen[1]} pixels, the student {image_size[0]}×{image_size[1]}; give "
                "the height and width of the teacher"
            )
        takes, given = models.input_names(model), {"images", *columns} & INPUTS
        if takes != given:
            raise InputError(
                f"teacher and student see the same: the teacher {self.teacher!r} takes "
                f"{' and '.join(sorted(takes))}, the student {' and '.join(sorted(given))}; give "
                "another teacher"
            )
        classes = model.output["logits"].shape[-1] if "logits" in model.output else "no"
        if "logits" in self.weights and classes != num_identities:
            raise InputError(
                f"logits are distilled identity by identity: the teacher {self.teacher!r} has "
                f"{classes} identities, the images {num_identities}; distill ranks or distances, "
                "or give a teacher trained on these images"
            )
        return model


INPUTS = {"images", "keypoints"}  # of models


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False
