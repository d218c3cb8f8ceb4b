"""Models that learn from each other: a directed graph of who learns from whom."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_reid.errors import InputError
from keras_reid.losses import DistillationLoss, MetricLoss
from keras_reid.training.graph import Edges, Models, named, pairs
from keras_reid.training.learner import (
    Optimized,
    Resumable,
    descend,
    logged,
    metric_losses,
    penalties,
    track,
    unpacked,
)
from keras_reid.training.objective import LossTerm, Objective, distill
from keras_reid.training.output_metrics import Given, OutputMetrics, refuse_losses

Seen = tuple[dict[str, Any], dict[str, Any]]

UPDATES = ("simultaneous", "sequential")
AVERAGES = ("mean", "sum", "ensemble")


@keras.saving.register_keras_serializable(package="keras_reid")
class MutualLearner(Resumable):
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
        super().__init__(**kwargs)
        self.members = named(members, "member", always=True)
        self.teachers = named(teachers, "teacher")
        self.objective = objective
        self.distillation = (
            distillation
            if isinstance(distillation, Objective)
            else Objective(distill(distillation))
        )
        self.update = update
        self.average = average
        self.ramp_up = ramp_up
        self.edges = pairs(edges, list(self.members), list(self.teachers))
        self._check()
        names = logged(objective, [term.name for term in self.distillation.terms])
        self.trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ["loss", *(self._log(m, name) for m in self.members for name in names)]
        }
        self.optimizers: dict[str, Any] = {}
        self.output_metrics: dict[str, OutputMetrics] = {}
        self.built = True

    def compile(
        self, optimizer: Any = "adam", loss: None = None, *, metrics: Given = None, **options: Any
    ) -> None:
        """Gives each member an optimizer of its own; other options as `keras.Model.compile`.

        Args:
            optimizer: a list with one for each member, or one whose configuration all get. What is
                not in the configuration (`exclude_from_weight_decay`) needs a list.
            metrics: of each member, see `Learner.compile`.

        Raises:
            InputError: as `Learner.compile`, or not one optimizer for each member.
        """
        refuse_losses({**options, "loss": loss})
        first = OutputMetrics(metrics, self.objective)
        self.output_metrics = {name: first.again(self.objective) for name in self.members}
        super().compile(optimizer=None, **options)
        several = isinstance(optimizer, Sequence) and not isinstance(optimizer, str)
        each = list(optimizer) if several else [_again(optimizer) for _ in self.members]
        if len(each) != len(self.members) or len({*map(id, each)}) != len(each):
            raise InputError(
                f"each of the {len(self.members)} members has an optimizer of its own: received "
                f"{len({*map(id, each)})}; give one to be copied, or a list with one for each"
            )
        if self.dtype_policy.name == "mixed_float16":
            each = [_loss_scaled(one) for one in each]
        self.optimizers = dict(zip(self.members, each, strict=True))
        for one, variables in self.optimized:
            one.build(variables)  # Keras would do it for one optimizer, outside of the replicas.

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        measured = (metric for own in self.output_metrics.values() for metric in own.all)
        return [*self.trackers.values(), *measured]

    @property
    def metric_losses(self) -> dict[str, MetricLoss]:
        """The metric losses of all members by their names in the logs."""
        return {
            self._log(member, name): loss
            for member in self.members
            for name, loss in metric_losses(self.objective).items()
        }

    @property
    def optimized(self) -> Optimized:
        """Each optimizer and what it trains."""
        return [
            (self.optimizers[name], model.trainable_variables)
            for name, model in self.members.items()
        ]

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        history = super().fit(*args, **kwargs)
        for optimizer, variables in self.optimized:
            optimizer.finalize_variable_values(variables)  # Keras knows of one optimizer only.
        return history

    def call(self, images: Any, training: bool | None = None) -> dict[str, Any]:
        return {name: model(images, training=training) for name, model in self.members.items()}

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels, weights = unpacked(data)
        views = self._views(images)
        outputs = self._taught(views)
        tapes: dict[str, tf.GradientTape] = {}
        values, statistics = {}, {}
        for name, model in self.members.items():
            with tf.GradientTape() as tapes[name]:
                outputs[name] = model(views[name], training=True)
        for name, model in self.members.items():
            optimizer = self.optimizers[name]
            with tapes[name]:
                ramp = self._ramp(optimizer)
                values[name] = self._terms_of(name, labels, outputs, weights, ramp)
                scaled = optimizer.scale_loss(values[name]["loss"])
            statistics[name] = self._seen(name, labels, outputs[name])
            descend(optimizer, tapes[name], scaled, model)
            if self.update == "sequential" and self._still_teaches(name):
                outputs[name] = _predicted_anew(model, views[name])
        return self._track(values, statistics)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels, weights = unpacked(data)
        views = self._views(images)
        outputs = self._taught(views)
        for name, model in self.members.items():
            outputs[name] = model(views[name], training=False)
        values = {
            name: self._terms_of(name, labels, outputs, weights, 1.0) for name in self.members
        }
        statistics = {name: self._seen(name, labels, outputs[name]) for name in self.members}
        return self._track(values, statistics)

    def _seen(self, name: str, labels: Mapping[str, Any], outputs: Mapping[str, Any]) -> Seen:
        """What the metric losses see, and what the member's own metrics measure."""
        measured = self.output_metrics[name].update(labels, outputs) if self.output_metrics else {}
        return self.objective.explain(labels, outputs), measured

    def _terms_of(
        self,
        name: str,
        labels: Mapping[str, Any],
        outputs: Mapping[str, Any],
        sample_weight: Any,
        ramp: Any,
    ) -> dict[str, Any]:
        """The member's loss and its terms without their weights."""
        terms = self.objective(labels, outputs[name], sample_weight)
        teachers = [outputs[teacher] for teacher, student in self.edges if student == name]
        distilled = {
            term.name: self._distilled(term, teachers, outputs[name], sample_weight)
            for term in self.distillation.terms
        }
        loss = self.objective.total(terms) + ramp * self.distillation.total(distilled)
        return {"loss": loss + penalties(self.members[name]), **terms, **distilled}

    def _distilled(
        self, term: LossTerm, teachers: list[Any], own: Mapping[str, Any], sample_weight: Any
    ) -> Any:
        """A term of the distillation, averaged over the teachers; 0 for a member who has none."""
        if not teachers:
            return 0.0
        if self.average == "ensemble":
            united = term.loss.ensemble([teacher[term.label] for teacher in teachers])
            return term({term.label: united}, own, sample_weight)
        total = sum(term(teacher, own, sample_weight) for teacher in teachers)
        return total / len(teachers) if self.average == "mean" else total

    def _ramp(self, optimizer: Any) -> Any:
        if not self.ramp_up:
            return 1.0
        return tf.minimum((tf.cast(optimizer.iterations, tf.float32) + 1) / self.ramp_up, 1.0)

    def _views(self, images: Any) -> dict[str, Any]:
        """What each model is shown."""
        views = list(images) if isinstance(images, (tuple, list)) else [images] * len(self.members)
        if len(views) != len(self.members):
            raise InputError(
                f"each of the {len(self.members)} members sees the images once: received "
                f"{len(views)} views; give one tensor, or a tuple with one for each member"
            )
        return dict.fromkeys(self.teachers, views[0]) | dict(zip(self.members, views, strict=True))

    def _taught(self, views: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of the frozen teachers."""
        return {name: model(views[name], training=False) for name, model in self.teachers.items()}

    def _still_teaches(self, name: str) -> bool:
        """Whether a later member has this one as a teacher."""
        order = list(self.members)
        later = order[order.index(name) + 1 :]
        return any(teacher == name and student in later for teacher, student in self.edges)

    def _track(
        self, values: Mapping[str, Mapping[str, Any]], seen: Mapping[str, Seen]
    ) -> dict[str, Any]:
        def by_log(said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
            return {self._log(m, name): v for m, own in said.items() for name, v in own.items()}

        total = sum(own["loss"] for own in values.values())
        statistics, measured = (by_log({m: both[i] for m, both in seen.items()}) for i in (0, 1))
        return track(self.trackers, {"loss": total, **by_log(values)}, statistics) | measured

    def _log(self, member: str, name: str) -> str:
        return f"{member}_{name}"

    def _check(self) -> None:
        if self.update not in UPDATES or self.average not in AVERAGES:
            raise InputError(
                f"an update is one of {', '.join(UPDATES)} and an average one of "
                f"{', '.join(AVERAGES)}: received {self.update!r} and {self.average!r}"
            )
        if self.ramp_up < 0:
            raise InputError(f"ramp_up is a number of steps from 0: received {self.ramp_up}")
        names = [term.name for term in (*self.objective.terms, *self.distillation.terms)]
        if len({*names}) < len(names):
            raise InputError(
                f"the terms of objective and distillation have different names: received {names}"
            )
        if self.average == "ensemble":
            plain = [
                t.name for t in self.distillation.terms if not isinstance(t.loss, DistillationLoss)
            ]
            if plain:
                raise InputError(
                    f"teachers are united by keras_reid.losses.DistillationLoss: received {plain} "
                    "of another kind; average by mean or sum"
                )
        for name, model in (self.members | self.teachers).items():
            self._check_outputs(name, model)

    def _check_outputs(self, name: str, model: keras.Model) -> None:
        needed = {term.label for term in self.distillation.terms}
        if name in self.members:
            terms = (*self.objective.terms, *self.distillation.terms)
            needed |= {key for term in terms for key in term.outputs}
        has = getattr(model, "output", None)
        if isinstance(has, dict) and not needed <= {*has}:
            raise InputError(
                f"the model {name!r} needs outputs named {sorted(needed)}: it has {sorted(has)}"
            )

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

    def get_compile_config(self) -> dict[str, Any]:
        save = keras.saving.serialize_keras_object
        first = next(iter(self.output_metrics.values()))
        return {
            "optimizer": [save(optimizer) for optimizer in self.optimizers.values()],
            "metrics": save(first.by_output),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        load = keras.saving.deserialize_keras_object
        optimizers = [load(optimizer) for optimizer in config["optimizer"]]
        self.compile(optimizers, metrics=load(config.get("metrics", {})))


def _predicted_anew(model: keras.Model, images: Any) -> Any:
    """What the model says in training mode now, without moving its batch statistics and seeds."""
    outputs, _ = model.stateless_call(
        model.trainable_variables, model.non_trainable_variables, images, training=True
    )
    return outputs


def _again(optimizer: Any) -> keras.optimizers.Optimizer:
    """A new optimizer of the same configuration, or of that name."""
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return type(optimizer).from_config(optimizer.get_config())
    return keras.optimizers.get(optimizer)


def _loss_scaled(optimizer: Any) -> keras.optimizers.Optimizer:
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer if scaled else keras.optimizers.LossScaleOptimizer(optimizer)
