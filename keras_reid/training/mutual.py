"""Models that learn from each other or from trained ones: a directed graph of teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_reid import checks, replicas
from keras_reid.errors import Shown, invalid
from keras_reid.losses import DistillationLoss, MetricLoss
from keras_reid.models.reid_model import (
    LossesByOutput,
    LossLogs,
    OutputLoss,
    output_losses,
    uncompiled,
)
from keras_reid.training.backup import SavedSeeds
from keras_reid.training.edges import Edges, Models, named, pairs, reid_models
from keras_reid.training.optimizers import MemberOptimizers, optimizers_of
from keras_reid.training.registry import AVERAGES, UPDATES


@keras.saving.register_keras_serializable(package="keras_reid")
class MutualLearner(SavedSeeds, LossesByOutput, keras.Model):
    """`loss_k = own losses + mean over its teachers l of Σ weight · distillation(l, k)`.

    An edge (teacher, student) adds a distillation term; the output of the teacher is a constant.
    All ordered pairs of members are deep mutual learning (Zhang et al., CVPR 2018,
    arXiv:1706.00384); edges from frozen models are distillation; both can be mixed.

    >>> import numpy as np
    >>> from keras_reid import losses
    >>> def classifier():
    ...     features = keras.Input((3,))
    ...     return keras.Model(features, {"logits": keras.layers.Dense(2)(features)})
    >>> learner = MutualLearner([classifier(), classifier()])
    >>> own = {"logits": losses.IdentityLoss()}
    >>> distilled = {"logits": losses.LogitDistillationLoss()}
    >>> learner.compile("adam", own, distillation_loss=distilled, run_eagerly=True)
    >>> logs = learner.train_on_batch(np.eye(3), np.array([0, 1, 1]), return_dict=True)
    >>> sorted(logs)[:3]
    ['loss', 'member1_logits_identity', 'member1_logits_logit_distillation']

    Batches are those of a `keras_reid.models.ReidModel`. With `views` of `data.pk_batches` they are
    `((images_1, … images_k), labels)`, the same images augmented for each member; frozen teachers
    see the first. The logs have `loss`, the sum over the members. For each member they have NAME_…
    for all logs of a `ReidModel` and `NAME_OUTPUT_LOSS` for each distillation without its weight.
    The trained models are `learner.members[NAME]`.

    Args:
        members: models to train, of the same or of different architectures, named by a dict or
            else member1, member2, … They should start from different weights: equal models with
            equal images stay equal.
        edges: `"all"`: each member learns from all other members and teachers; `"ring"`: from the
            member before it and from all teachers; or pairs (teacher, student) of names.
        teachers: frozen models, named by a dict or else teacher (teacher1, teacher2, … for
            several). They run in inference mode and are not changed.
        update: `"simultaneous"`: all predict, then all step. `"sequential"`: after its step, a
            member predicts the same batch again for the next members. Batch statistics and seeds
            change once per step in both.
        average: average over the teachers of a student: `"mean"`, `"sum"`, or `"ensemble"`: one
            output represents all teachers (DML_e; see `DistillationLoss.ensemble`).
        ramp_up: number of steps of the linear increase of the distillation weights.

    Raises:
        InputError: no edge, an unknown name, a model with unnamed outputs, or an argument out of
            range.
    """

    optimizer: Any
    _loss_arguments = ("distillation_loss", "distillation_weights")

    def __init__(
        self,
        members: Models,
        edges: Edges = "all",
        teachers: Models = (),
        update: str = "simultaneous",
        average: str = "mean",
        ramp_up: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        checks.one_of(UPDATES, update=update)
        checks.one_of(AVERAGES, average=average)
        checks.at_least(0, ramp_up=ramp_up)
        by_name = named(members, "member"), named(teachers, "teacher")
        names = [name for models in by_name for name in models]
        if not len({*names}) == len({id(m) for own in by_name for m in own.values()}) == len(names):
            rule = "models and names that differ from each other and from those of `teachers`"
            raise invalid("members", rule, names)
        self.members, self.teachers = map(reid_models, by_name)
        self.edges = pairs(edges, list(self.members), list(self.teachers))
        self.update = update
        self.average = average
        self.ramp_up = ramp_up
        self.built = True

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Mapping[str, Any] | None = None,
        distillation_loss: Mapping[str, Any] | None = None,
        distillation_weights: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Compile each member.

        Args:
            optimizer: optimizer that is copied for every member, or a list with one for each
                member. Settings outside of its configuration (`exclude_from_weight_decay`) require
                a list.
            loss: losses of each member by output, see `ReidModel`; None: no such losses.
            loss_weights: factors of these losses.
            metrics: metrics of each member by output; each member has copies of them.
            distillation_loss: a `DistillationLoss`, or a list of them, by output.
            distillation_weights: factors of these losses.
            options: run_eagerly, jit_compile, steps_per_execution or auto_scale_loss.

        Raises:
            InputError: no distillation loss, a key that is not an output, or another number of
                optimizers than members.
        """
        members = [*self.members.values()]
        for member, own in zip(members, optimizers_of(optimizer, len(members)), strict=True):
            member.compile(own, loss or {}, loss_weights, metrics=_copied(metrics), **options)
        outputs = [{*model.output} for model in (*members, *self.teachers.values())]
        distillations = output_losses(
            set.intersection(*outputs),
            distillation_loss=distillation_loss,
            distillation_weights=distillation_weights,
        )
        plain = [one.name for one in distillations if not isinstance(one.loss, DistillationLoss)]
        if self.average == "ensemble" and plain:
            fix = "Only a DistillationLoss supports ensembles."
            raise invalid("average", f'"mean" or "sum" for the losses {plain}', "ensemble", fix)
        super().compile(optimizer=None, **options)
        self.optimizer = MemberOptimizers([member.optimizer for member in members])
        self.distillation_loss, self.distillation_weights = distillation_loss, distillation_weights
        logs = ["loss", *(one.name for one in distillations)]
        logs = ["loss", *(self._log(member, name) for member in self.members for name in logs)]
        with replicas.scope(self):
            self._loss_logs = LossLogs(distillations, dict.fromkeys(logs))
            for member in members:
                member.optimizer.build(member.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        of_members = (metric for member in self.members.values() for metric in member.metrics)
        # Keras's mean of the loss is updated by its own training step only.
        updated = (metric for metric in of_members if metric.name != "loss")
        return [*self._loss_logs.means.values(), *updated]

    @property
    def metric_losses(self) -> dict[str, MetricLoss]:
        """Metric losses of all members by name in the logs."""
        losses = ((name, member.metric_losses) for name, member in self.members.items())
        return {self._log(name, key): loss for name, own in losses for key, loss in own.items()}

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        history = super().fit(*args, **kwargs)
        for member in self.members.values():  # Keras does so for a single optimizer
            member.optimizer.finalize_variable_values(member.trainable_variables)
        return history

    def call(self, images: Any, training: bool | None = None) -> Any:
        return {name: model(images, training=training) for name, model in self.members.items()}

    def train_step(self, data: Any) -> dict[str, Any]:
        return self._step(data, training=True)

    def test_step(self, data: Any) -> dict[str, Any]:
        return self._step(data, training=False)

    def _step(self, data: Any, training: bool) -> dict[str, Any]:
        """Predict with all members, then compute the losses of each and train it."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        views, tapes, (*_, last) = self._views(x), {}, self.members.values()
        first = next(iter(views.values()))
        outputs = {name: model(first, training=False) for name, model in self.teachers.items()}
        for name, member in self.members.items():
            with tf.GradientTape() as tapes[name]:
                outputs[name] = member(views[name], training=training)
        logs: dict[str, Any] = {}
        total = 0.0
        for name, member in self.members.items():
            with tapes[name]:
                loss = self._loss_of(name, y, outputs, weight, training)
                scaled = member.optimizer.scale_loss(loss)
            total = total + loss
            values = member.compute_metrics(None, y, outputs[name], weight)
            logs |= {self._log(name, key): value for key, value in values.items() if key != "loss"}
            if training:
                variables = member.trainable_variables
                gradients = tapes[name].gradient(scaled, variables)
                member.optimizer.apply_gradients(zip(gradients, variables, strict=True))
                if self.update == "sequential" and member is not last:
                    outputs[name] = _predicted_again(member, views[name])
        # Of a `Distiller` this is the same entry with the same value.
        self._loss_logs.add(["loss"], [total * replicas.count()])
        means = {name: mean.result() for name, mean in self._loss_logs.means.items()}
        return logs | replicas.logs(means)

    def _loss_of(
        self, name: str, y: Any, outputs: dict[str, Any], sample_weight: Any, training: bool
    ) -> Any:
        """Return the loss of a member: its own losses and the distillation of its teachers."""
        member, own, ramp = self.members[name], outputs[name], 1.0
        if training and self.ramp_up:
            step = tf.cast(member.optimizer.iterations, tf.float32) + 1
            ramp = tf.minimum(step / self.ramp_up, 1.0)
        total = member.compute_loss(None, y, own, sample_weight)
        teachers = [outputs[teacher] for teacher, student in self.edges if student == name]
        logs = {}
        for one in self._loss_logs.losses:
            value = self._distilled(one, teachers, own, sample_weight)
            logs[self._log(name, one.name)] = value * replicas.count()
            total = total + ramp * one.weight * value
        logs[self._log(name, "loss")] = total * replicas.count()
        self._loss_logs.add(logs.keys(), logs.values())
        return total

    def _distilled(
        self, one: OutputLoss, teachers: Sequence[Any], own: Any, sample_weight: Any
    ) -> Any:
        """Return a distillation, averaged over the teachers; 0 for a model that has no teacher."""
        targets = [one.read(teacher) for teacher in teachers]
        if self.average == "ensemble" and targets:
            targets = [one.loss.ensemble(targets)]
        total = sum(one.measure(target, own, sample_weight)[0] for target in targets)
        return total / max(len(targets), 1) if self.average == "mean" else total

    def _views(self, images: Any) -> dict[str, Any]:
        """Return the images for each member."""
        if not isinstance(images, (tuple, list)):
            return dict.fromkeys(self.members, images)
        if len(images) != len(self.members):
            rule = f"one tensor, or a tuple of {len(self.members)} tensors, one for each member"
            fix = f"Pass views={len(self.members)} to pk_batches."
            raise invalid("images", rule, Shown(f"{len(images)}"), fix)
        return dict(zip(self.members, images, strict=True))

    def _log(self, member: str, name: str) -> str:
        """Return the name in the logs for the entry `name` of a member."""
        return f"{member}_{name}"

    def get_config(self) -> dict[str, Any]:
        config = {
            "members": {name: uncompiled(model) for name, model in self.members.items()},
            "teachers": self.teachers,
            "edges": [list(edge) for edge in self.edges],
            "update": self.update,
            "average": self.average,
            "ramp_up": self.ramp_up,
        }
        return keras.saving.serialize_keras_object(config)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MutualLearner":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects))

    def get_compile_config(self) -> dict[str, Any]:
        members = [member.get_compile_config() for member in self.members.values()]
        optimizers = [config.get("optimizer") for config in members]
        config = super().get_compile_config()
        return {**config, **members[0], "optimizer": optimizers} if config else {}


def _copied(metrics: Any) -> Any:
    """Return the metrics with a state of their own, for another member."""

    def copy(one: Any) -> Any:
        is_metric = isinstance(one, keras.metrics.Metric)
        return type(one).from_config(one.get_config()) if is_metric else one

    return keras.tree.map_structure(copy, metrics)


def _predicted_again(member: keras.Model, images: Any) -> Any:
    """Return the outputs in training mode, without a change of batch statistics and seeds."""
    outputs, _ = member.stateless_call(
        member.trainable_variables, member.non_trainable_variables, images, training=True
    )
    return outputs
