"""Models that learn from each other: a directed graph of who learns from whom."""

from typing import Any

import keras

from keras_reid.errors import InputError
from keras_reid.losses import DistillationLoss
from keras_reid.training.graph import Edges, Models, named, pairs
from keras_reid.training.learner import GraphLearner
from keras_reid.training.objective import Objective, joint


@keras.saving.register_keras_serializable(package="keras_reid")
class MutualLearner(GraphLearner):
    """`loss_k = objective_k + mean over its teachers l of Σ weight · distill(output_l, output_k)`.

    Each edge (teacher, student) of the graph adds what the student would lose by not being like the
    teacher, who is a constant. Every ordered pair of members is deep mutual learning (Zhang et al.,
    CVPR 2018, arXiv:1706.00384); edges from frozen models are distillation; both can be mixed.

        distillation = Objective(distill(LogitDistillationLoss(), 1.0))
        learner = MutualLearner([a, b], objective, distillation)
        learner.compile(keras.optimizers.Adam(3e-4))
        learner.fit(batches)

    Batches are `(images, labels)`, see `Learner`, or `((images_1, … images_k), labels)` with the
    same images augmented for each member, see the argument `views` of `data.pk_batches`; frozen
    teachers then see the first. The logs have, for each member NAME, all that a `Learner` logs as
    `NAME_…`, and `NAME_DISTILLATION` for each term of the distillation, unweighted. `loss` is the
    sum of the members' losses. Sample weights weigh images as in a `Learner`. The trained models
    are `learner.members[NAME]`.

    Args:
        members: the models that learn, of the same or of different architectures, named by a dict
            or else member1, member2, … They should not start from equal weights: equal models that
            see equal images stay equal.
        objective: what each member is trained for beside.
        distillation: terms of `distill`, or one `DistillationLoss`.
        edges: `"all"`: everyone from every other member and every frozen teacher; `"ring"`: each
            from the one before it, and from every frozen teacher; or pairs (teacher, student)
            of names.
        update: `"simultaneous"`: all predict, then all step. `"sequential"`: when a member has
            stepped, it predicts the same batch anew for those who come after it. Batch statistics
            and seeds move once a step in both.
        teachers: frozen models, named by a dict or else teacher (teacher1, teacher2, … if there
            are several). They run in inference mode and are not changed.
        average: over the teachers of a student: `"mean"`, `"sum"`, or `"ensemble"`: the student
            learns from the one output that stands for all of them (DML_e; see
            `DistillationLoss.ensemble`).
        ramp_up: steps over which the weights of the distillation rise linearly.

    Raises:
        InputError: no edge, an unknown name, a model without an output that a term reads, or an
            argument out of range.
    """

    def __init__(
        self,
        members: Models,
        objective: Objective,
        distillation: Objective | DistillationLoss,
        edges: Edges = "all",
        update: str = "simultaneous",
        teachers: Models = (),
        average: str = "mean",
        ramp_up: int = 0,
        **kwargs: Any,
    ) -> None:
        chosen = named(members, "member", always=True)
        frozen = named(teachers, "teacher")
        super().__init__(
            chosen,
            objective,
            frozen,
            pairs(edges, list(chosen), list(frozen)),
            joint(distillation),
            update,
            average,
            ramp_up,
            **kwargs,
        )

    @property
    def members(self) -> dict[str, keras.Model]:
        """The models that learn, by name."""
        return self.trained

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        return {name: model(images, training=training) for name, model in self.members.items()}

    def _views(self, images: Any) -> dict[str, Any]:
        if not isinstance(images, (tuple, list)):
            return super()._views(images)
        if len(images) != len(self.members):
            raise InputError(
                f"each of the {len(self.members)} members sees the images once: received "
                f"{len(images)} views; give one tensor, or a tuple with one for each member"
            )
        own = dict(zip(self.members, images, strict=True))
        return dict.fromkeys(self.teachers, images[0]) | own

    def get_config(self) -> dict[str, Any]:
        save = keras.saving.serialize_keras_object
        return {
            "members": {name: save(model) for name, model in self.members.items()},
            "teachers": {name: save(model) for name, model in self.teachers.items()},
            "objective": save(self.objective),
            "distillation": save(self.distillation),
            "edges": [list(edge) for edge in self.edges],
            "update": self.update,
            "average": self.average,
            "ramp_up": self.ramp_up,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MutualLearner":
        load = keras.saving.deserialize_keras_object
        made: dict[str, Any] = {name: load(config[name]) for name in ("objective", "distillation")}
        for nodes in ("members", "teachers"):
            made[nodes] = {name: load(model) for name, model in config[nodes].items()}
        return cls(**{**config, **made})
