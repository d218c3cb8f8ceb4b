"""Training models for an objective, and by each other, in a custom `train_step`."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.losses import STATISTICS, DistillationLoss, MetricLoss
from keras_reid.training.objective import LossTerm, Objective
from keras_reid.training.output_metrics import Given, OutputMetrics, refuse_losses
from keras_reid.training.registry import AVERAGES, UPDATES

Optimized = list[tuple[keras.optimizers.Optimizer, list[Any]]]
ByName = dict[str, dict[str, Any]]
WEIGHTS = "sample_weight"  # the label under which an array of weights reaches a step


SIDES = ("positive", "negative")  # pairs of one identity and of two
CALLBACKS = 4  # position of `callbacks` among the arguments of `fit` after x and y


class PairWarning(keras.callbacks.Callback):
    """Warn once if the first batch has no pair of one identity, or none of two.

    The metric losses of such a batch are 0, or have one side only.
    """

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch or getattr(self, "checked", False):
            return
        self.checked = True
        for name in self.model.metric_losses:
            positive, negative = ((logs or {}).get(f"{name}_{side}", 0.0) for side in SIDES)
            if (positive == 0) != (negative == 0):
                kind, cause = ("one identity", "K = 1") if positive == 0 else ("two", "P = 1")
                logging.warning(
                    "the first batch has no pair of images of %s (%s), from which the metric loss "
                    "%r learns: use batches of P identities with K images each, both at least 2, "
                    "such as keras_reid.data.pk_batches returns",
                    kind,
                    cause,
                    name,
                )
                return


class Resumable(keras.Model):
    """A model that saves the states of its seeds too, which Keras leaves out.

    Without them a training with dropout that goes on from a file draws its first noise again.
    """

    def save_own_variables(self, store: Any) -> None:
        for number, seed in enumerate(self._seeds()):
            store[str(number)] = seed.numpy()

    def load_own_variables(self, store: Any) -> None:
        for number, seed in enumerate(self._seeds()):
            seed.assign(store[str(number)])

    def _seeds(self) -> list[Any]:
        others = {id(variable) for variable in (*self.weights, *self.metrics_variables)}
        return [variable for variable in self.variables if id(variable) not in others]


class MemberOptimizers:
    """The optimizers of several models, as `model.optimizer` for the callbacks of Keras.

    `ReduceLROnPlateau`, `LearningRateScheduler`, `SwapEMAWeights` and `TensorBoard` of new releases
    treat each of `optimizers` by itself; those of old ones read and set `learning_rate`.
    """

    built = True

    def __init__(self, optimizers: Sequence[keras.optimizers.Optimizer]) -> None:
        self.optimizers = [getattr(one, "inner_optimizer", one) for one in optimizers]

    @property
    def learning_rate(self) -> Any:
        """The rate of all members.

        Raises:
            InputError: the rates of the members differ.
        """
        rates = [float(keras.ops.convert_to_numpy(one.learning_rate)) for one in self.optimizers]
        if len({*rates}) > 1:
            raise InputError(
                f"`learning_rate` must be one number for all members, got {rates}. Give each "
                "optimizer a schedule of keras.optimizers.schedules instead of a callback."
            )
        return self.optimizers[0].learning_rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        for one in self.optimizers:
            one.learning_rate = rate

    @property
    def iterations(self) -> Any:
        """The number of steps, which is the same for all members."""
        return self.optimizers[0].iterations

    @property
    def variables(self) -> list[Any]:
        """The variables of all optimizers."""
        return [variable for one in self.optimizers for variable in one.variables]

    @property
    def use_ema(self) -> bool:
        """True if every optimizer keeps moving averages of the weights."""
        return all(one.use_ema for one in self.optimizers)


class GraphLearner(Resumable):
    """`loss_k = objective_k + Σ weight · distill(output_l, output_k)` over the teachers l of k.

    A directed graph: the nodes are models, those that are trained and frozen ones, and an edge
    (teacher, student) is what the student would lose by not being like the teacher, who is a
    constant. `Learner` is the graph of one node, `Distiller` that of one edge, and
    `MutualLearner` any other.

    Args:
        trained: the models that learn, by name.
        objective: what each of them is trained for.
        teachers: the frozen models by name.
        edges: pairs (teacher, student) of names.
        distillation, update, average, ramp_up: see `MutualLearner`.

    Raises:
        InputError: an argument out of range, terms of one name, or a model without an output that
            a term reads.
    """

    optimizer: Any

    def __init__(
        self,
        trained: Mapping[str, keras.Model],
        objective: Objective,
        teachers: Mapping[str, keras.Model] | None = None,
        edges: Sequence[tuple[str, str]] = (),
        distillation: Objective | None = None,
        update: str = "simultaneous",
        average: str = "mean",
        ramp_up: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.trained = dict(trained)
        self.teachers = dict(teachers or {})
        self.edges = list(edges)
        self.objective = objective
        self.distillation = distillation
        self.update = update
        self.average = average
        self.ramp_up = ramp_up
        names = logged(objective, [term.name for term in self.distillations])
        with self.strategy.scope():
            self.trackers = {
                name: keras.metrics.Mean(name=name)
                for name in ["loss", *(self._log(m, name) for m in self.trained for name in names)]
            }
            self.output_metrics = {name: OutputMetrics(None, objective) for name in self.trained}
        self.optimizers: dict[str, Any] = {}
        self.built = True
        if distillation:
            _check(self)

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The one in whose scope the models were made."""
        return next(iter(self.trained.values())).distribute_strategy

    def compile(
        self, optimizer: Any = "adam", loss: None = None, *, metrics: Given = None, **options: Any
    ) -> None:
        """As `keras.Model.compile`, but that the objective stands for the losses.

        Args:
            optimizer: of the model's weights; with several models a list with one for each, or one
                whose configuration all get. What is not in the configuration
                (`exclude_from_weight_decay`) needs a list.
            metrics: of each model, by the names of outputs, such as `{"logits": "accuracy"}`; see
                `keras_reid.training.OutputMetrics`.
            options: run_eagerly, jit_compile, steps_per_execution or auto_scale_loss.

        Raises:
            InputError: losses, metrics that do not say of which output they are, or not one
                optimizer for each model.
        """
        refuse_losses({**options, "loss": loss})
        first = OutputMetrics(metrics, self.objective)
        later = {name: first.again(self.objective) for name in self.trained}
        self.output_metrics = later | {next(iter(self.trained)): first}
        several = isinstance(optimizer, Sequence) and not isinstance(optimizer, str)
        if not several and len(self.trained) == 1:
            each = [keras.optimizers.get(optimizer)]
        else:
            each = list(optimizer) if several else [_again(optimizer) for _ in self.trained]
        if len(each) != len(self.trained) or len({*map(id, each)}) != len(each):
            raise InputError(
                f"each of the {len(self.trained)} members has an optimizer of its own: received "
                f"{len({*map(id, each)})}; give one to be copied, or a list with one for each"
            )
        # Keras takes an optimizer to be of all weights, those of frozen teachers too.
        alone = len(each) == 1 and not self.teachers
        super().compile(optimizer=each[0] if alone else None, **options)
        if not alone and self.dtype_policy.name == "mixed_float16":
            each = [_loss_scaled(one) for one in each]
        if alone:
            each = [self.optimizer]
        else:
            self.optimizer = MemberOptimizers(each)
        self.optimizers = dict(zip(self.trained, each, strict=True))
        with self.strategy.scope():
            for one, variables in self.optimized:
                one.build(variables)  # Keras would do it for one, outside of the replicas.

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        measured = (metric for own in self.output_metrics.values() for metric in own.all)
        return [*self.trackers.values(), *measured]

    @property
    def metric_losses(self) -> dict[str, MetricLoss]:
        """The metric losses of all trained models by their names in the logs."""
        return {
            self._log(model, name): loss
            for model in self.trained
            for name, loss in metric_losses(self.objective).items()
        }

    @property
    def optimized(self) -> Optimized:
        """Each optimizer and what it trains."""
        return [
            (self.optimizers[name], model.trainable_variables)
            for name, model in self.trained.items()
        ]

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        refuse_class_weight(kwargs.get("class_weight"))
        y = weighted_labels(y, kwargs.pop("sample_weight", None), kwargs)
        validation = kwargs.get("validation_data")
        if isinstance(validation, tuple) and len(validation) == 3:
            images, labels, weights = validation
            named: dict[str, Any] = {}
            labels = weighted_labels(labels, weights, named)
            kwargs["validation_data"] = (images, labels, *named.values())
        if isinstance(kwargs.get("callbacks"), (list, type(None))) and len(args) < CALLBACKS:
            kwargs["callbacks"] = [*(kwargs.get("callbacks") or ()), PairWarning()]
        with self.strategy.scope():
            history = super().fit(x, y, *args, **kwargs)
        for optimizer, variables in self.optimized:
            optimizer.finalize_variable_values(variables)  # Keras knows of one optimizer only.
        return history

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        y = weighted_labels(y, kwargs.pop("sample_weight", None), kwargs)
        return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: None = None,
        **kwargs: Any,
    ) -> Any:
        refuse_class_weight(class_weight)
        y = weighted_labels(y, sample_weight, kwargs)
        return super().train_on_batch(x, y, **kwargs)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, **kwargs: Any) -> Any:
        y = weighted_labels(y, sample_weight, kwargs)
        return super().test_on_batch(x, y, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        images, labels, weights = unpacked(data)
        views = self._views(images)
        outputs = self._taught(views)
        tapes: dict[str, tf.GradientTape] = {}
        values: ByName = {}
        seen: ByName = {}
        for name, model in self.trained.items():
            with tf.GradientTape() as tapes[name]:
                outputs[name] = model(views[name], training=True)
        for name, model in self.trained.items():
            optimizer = self.optimizers[name]
            with tapes[name]:
                ramp = self._ramp(optimizer)
                values[name], seen[name] = self._terms_of(name, labels, outputs, weights, ramp)
                scaled = optimizer.scale_loss(values[name]["loss"])
            descend(optimizer, tapes[name], scaled, model)
            if self.update == "sequential" and self._still_teaches(name):
                outputs[name] = _predicted_anew(model, views[name])
        return self._track(values, seen)

    def test_step(self, data: Any) -> dict[str, Any]:
        images, labels, weights = unpacked(data)
        views = self._views(images)
        outputs = self._taught(views)
        values: ByName = {}
        seen: ByName = {}
        for name, model in self.trained.items():
            outputs[name] = model(views[name], training=False)
        for name in self.trained:
            values[name], seen[name] = self._terms_of(name, labels, outputs, weights, 1.0)
        return self._track(values, seen)

    def _terms_of(
        self,
        name: str,
        labels: Mapping[str, Any],
        outputs: Mapping[str, Any],
        sample_weight: Any,
        ramp: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A model's loss and its terms without their weights; and what is measured beside."""
        own = outputs[name]
        terms, statistics = self.objective.measure(labels, own, sample_weight)
        loss = self.objective.total(terms) + penalties(self.trained[name])
        distilled: dict[str, Any] = {}
        if self.distillation:
            teachers = [outputs[teacher] for teacher, student in self.edges if student == name]
            distilled = {
                term.name: self._distilled(term, teachers, own, sample_weight)
                for term in self.distillations
            }
            loss += ramp * self.distillation.total(distilled)
        measured = self.output_metrics[name].update(labels, own)
        return {"loss": loss, **terms, **distilled}, {"statistics": statistics, "metrics": measured}

    def _distilled(
        self, term: LossTerm, teachers: list[Any], own: Mapping[str, Any], sample_weight: Any
    ) -> Any:
        """A term of the distillation, averaged over the teachers; 0 for a model that has none."""
        if not teachers:
            return 0.0
        if self.average == "ensemble":
            united = term.loss.ensemble([teacher[term.label] for teacher in teachers])
            return term({term.label: united}, own, sample_weight)
        total = sum(term(teacher, own, sample_weight) for teacher in teachers)
        return total / len(teachers) if self.average == "mean" else total

    @property
    def distillations(self) -> Sequence[LossTerm]:
        """What a student learns from each of its teachers."""
        return self.distillation.terms if self.distillation else ()

    def _ramp(self, optimizer: Any) -> Any:
        if not self.ramp_up:
            return 1.0
        return tf.minimum((tf.cast(optimizer.iterations, tf.float32) + 1) / self.ramp_up, 1.0)

    def _views(self, images: Any) -> dict[str, Any]:
        """What each model is shown."""
        return dict.fromkeys([*self.teachers, *self.trained], images)

    def _taught(self, views: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of the frozen teachers."""
        return {name: model(views[name], training=False) for name, model in self.teachers.items()}

    def _still_teaches(self, name: str) -> bool:
        """Whether a later model has this one as a teacher."""
        order = list(self.trained)
        later = order[order.index(name) + 1 :]
        return any(teacher == name and student in later for teacher, student in self.edges)

    def _track(self, values: ByName, seen: ByName) -> dict[str, Any]:
        """The logs, with a step added: losses of one replica, statistics and metrics."""

        def by_log(said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
            return {self._log(m, name): v for m, own in said.items() for name, v in own.items()}

        losses = {"loss": sum(own["loss"] for own in values.values()), **by_log(values)}
        for name, value in losses.items():
            self.trackers[name].update_state(value * _replicas())
        for name, value in by_log({m: own["statistics"] for m, own in seen.items()}).items():
            self.trackers[name].update_state(value)
        logs = {name: tracker.result() for name, tracker in self.trackers.items()}
        logs |= by_log({m: own["metrics"] for m, own in seen.items()})
        if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
            # Keras averages what workers return along an axis that numbers do not have.
            return {name: tf.reshape(value, (1,)) for name, value in logs.items()}
        return logs

    def _log(self, model: str, name: str) -> str:
        """What the logs call that of a model."""
        return f"{model}_{name}"

    def get_compile_config(self) -> dict[str, Any]:
        save = keras.saving.serialize_keras_object
        first = next(iter(self.output_metrics.values()))
        return {
            "optimizer": [save(optimizer) for optimizer in self.optimizers.values()],
            "metrics": save(first.by_output),
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable(package="keras_reid")
class Learner(GraphLearner):
    """`model` trained for `objective` by `compile(optimizer)` and `fit(batches)`.

    Batches are `(images, labels)` with a dict of labels, as `keras_reid.data.pk_batches` yields
    them, or `(images, labels, sample_weight)` with a weight `(b,)` for each image, by which every
    term multiplies what the image costs. The history has `loss` (the weighted sum), one entry for
    each term of the objective and, of a term NAME with a metric loss, the statistics of
    `MetricLoss.measure`: `NAME_active`, `NAME_positive`, `NAME_negative` and `NAME_norm`.
    The trained model is `learner.model`; it needs nothing of this class.

    Args:
        model: outputs a dict, see `keras_reid.models.build`.
        objective: terms over these outputs.
        graph: what a `Distiller` adds.
    """

    def __init__(self, model: keras.Model, objective: Objective, **graph: Any) -> None:
        super().__init__({"model": model}, objective, **graph)

    @property
    def model(self) -> keras.Model:
        """The trained model."""
        return self.trained["model"]

    def call(self, images: Any, training: bool | None = None) -> Any:
        return self.model(images, training=training)

    def _log(self, model: str, name: str) -> str:
        return name

    def get_config(self) -> dict[str, Any]:
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "objective": keras.saving.serialize_keras_object(self.objective),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Learner":
        return cls(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})


def _check(learner: GraphLearner) -> None:
    """Refuses what cannot be distilled."""
    checks.one_of(UPDATES, update=learner.update)
    checks.one_of(AVERAGES, average=learner.average)
    checks.at_least(0, ramp_up=learner.ramp_up)
    names = [term.name for term in (*learner.objective.terms, *learner.distillations)]
    if len({*names}) < len(names):
        raise InputError(
            f"the terms of objective and distillation have different names: received {names}"
        )
    if learner.average == "ensemble":
        plain = [t.name for t in learner.distillations if not isinstance(t.loss, DistillationLoss)]
        if plain:
            raise InputError(
                f"teachers are united by keras_reid.losses.DistillationLoss: received {plain} "
                "of another kind; average by mean or sum"
            )
    for name, model in (learner.trained | learner.teachers).items():
        _check_outputs(learner, name, model)


def _check_outputs(learner: GraphLearner, name: str, model: keras.Model) -> None:
    needed = {term.label for term in learner.distillations}
    if name in learner.trained:
        terms = (*learner.objective.terms, *learner.distillations)
        needed |= {key for term in terms for key in term.outputs}
    has = getattr(model, "output", None)
    if isinstance(has, dict) and not needed <= {*has}:
        raise InputError(
            f"the model {name!r} needs outputs named {sorted(needed)}: it has {sorted(has)}"
        )


def logged(objective: Objective, distillation: Sequence[str] = ()) -> list[str]:
    """The names in the logs: the sum, the terms, what metric losses see, what is distilled."""
    statistics = [
        f"{name}_{statistic}" for name in metric_losses(objective) for statistic in STATISTICS
    ]
    return ["loss", *(term.name for term in objective.terms), *distillation, *statistics]


def metric_losses(objective: Objective) -> dict[str, MetricLoss]:
    """The metric losses of an objective by the names of their terms."""
    return {term.name: term.loss for term in objective.terms if isinstance(term.loss, MetricLoss)}


def unpacked(data: Any) -> tuple[Any, Any, Any]:
    """Images, labels and sample weights `(b,)` or None.

    Raises:
        InputError: weights by output or label.
    """
    images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(labels, Mapping) and WEIGHTS in labels:
        labels = dict(labels)
        weights = labels.pop(WEIGHTS)
    _check_weights(weights)
    return images, labels, weights


def weighted_labels(labels: Any, sample_weight: Any, options: dict[str, Any]) -> Any:
    """Return the labels with the weights as one of them, for `unpacked`.

    Keras would repeat an array of weights for each label of a dict. Weights of other labels are
    left in `options`.
    """
    if sample_weight is None:
        return labels
    if not isinstance(labels, Mapping):
        options["sample_weight"] = sample_weight
        return labels
    _check_weights(sample_weight)
    return {**labels, WEIGHTS: sample_weight}


def _check_weights(weights: Any) -> None:
    if weights is not None and (keras.tree.is_nested(weights) or len(weights.shape) != 1):
        raise InputError(
            "sample_weight has one number (b,) for each image, by which all terms weigh it: "
            f"received {keras.tree.map_structure(lambda w: tuple(w.shape), weights)}; weigh terms "
            "by LossTerm(weight=…)"
        )


def refuse_class_weight(class_weight: Any) -> None:
    """Raise for class weights.

    Raises:
        InputError: `class_weight` is not None.
    """
    if class_weight is not None:
        raise InputError(
            "`class_weight` must be None, because the labels are a dict, got "
            f"{class_weight!r:.60}. Pass `sample_weight`, one number (b,) for each image."
        )


def penalties(model: keras.Model) -> Any:
    """The weights' own losses, for one replica.

    Keras divides a (b,) loss by the number of replicas, because their gradients are added up;
    these must be divided likewise.
    """
    return sum(model.losses) / _replicas() if model.losses else 0.0


def descend(optimizer: Any, tape: tf.GradientTape, loss: Any, model: keras.Model) -> None:
    """One step of the model down the gradient of the (scaled) loss."""
    variables = model.trainable_variables
    # An output that no term reads has no gradient, and is left as it is.
    gradients = zip(tape.gradient(loss, variables), variables, strict=True)
    optimizer.apply_gradients([pair for pair in gradients if pair[0] is not None])


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


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync
