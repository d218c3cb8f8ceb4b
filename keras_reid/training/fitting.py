"""From a recipe and images to a trained model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_reid import losses, models
from keras_reid.data import (
    AttributeSchema,
    PersonImages,
    Tracklets,
    pk_batches,
    pk_clips,
    pk_steps,
    rates,
)
from keras_reid.errors import InputError
from keras_reid.models.heads import AttributeHead, Head, LocalHead, PartHead, PoseHead
from keras_reid.skeletons import KEYPOINTS
from keras_reid.training.callbacks import (
    Backup,
    CollapseMonitor,
    History,
    RetrievalEvaluation,
    optimized,
)
from keras_reid.training.distiller import Distiller
from keras_reid.training.learner import Learner
from keras_reid.training.mutual import MutualLearner
from keras_reid.training.objective import LossTerm, Objective, distill
from keras_reid.training.rates import RatedAdam, new_variables
from keras_reid.training.recipes import Recipe
from keras_reid.training.refinement import prepared
from keras_reid.training.runs import Run
from keras_reid.training.schedules import schedule


@dataclass(frozen=True)
class Annotations:
    """What training images have beside identities and cameras, as far as a model depends on it.

    Attributes:
        keypoints: number of body points; 0: none.
        schema: of the attributes; None: none.
        rates: fraction of the training images that have each attribute.
    """

    keypoints: int = 0
    schema: AttributeSchema | None = None
    rates: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, images: Any, schema: AttributeSchema | None = None) -> "Annotations":
        """Those of images (or tracklets, which have none), with the names of their attributes."""
        points = getattr(images, "columns", {}).get(KEYPOINTS)
        return cls(
            0 if points is None else points.shape[1],
            schema,
            np.zeros(0) if schema is None else rates(images),
        )


NONE = Annotations()


def build_model(
    recipe: Recipe, num_identities: int, annotations: Annotations = NONE
) -> keras.Model:
    """The untrained model of a recipe.

    Raises:
        InputError: a recipe with pose or attributes without the annotations that they need.
    """
    if recipe.temporal:
        return models.build_tracklet(
            recipe.backbone,
            num_identities if recipe.classifies else None,
            recipe.image_size,
            temporal=recipe.temporal,
            weights=recipe.weights,
            pooling=recipe.pooling,
            neck=recipe.neck,
            last_stride=recipe.last_stride,
            width=recipe.embedding_width or None,
            mixstyle=recipe.mixstyle,
        )
    return models.build(
        recipe.backbone,
        num_identities if recipe.classifies else None,
        recipe.image_size,
        weights=recipe.weights,
        pooling=recipe.pooling,
        neck=recipe.neck,
        embedding=recipe.embedding,
        last_stride=recipe.last_stride,
        width=recipe.embedding_width or None,
        mixstyle=recipe.mixstyle,
        classifier="linear" if recipe.softmax == "plain" else "cosine",
        heads=build_heads(recipe, annotations),
    )


def build_heads(recipe: Recipe, annotations: Annotations = NONE) -> list[Head]:
    """The local features, parts, pose and attributes of a recipe, if it has any."""
    chosen: list[Head] = []
    if recipe.stripes:
        chosen.append(
            LocalHead(
                recipe.stripes,
                recipe.stripe_width,
                recipe.stripe_pooling,
                recipe.stripe_order,
                recipe.stripe_normalize,
            )
        )
    if recipe.parts:
        refinable = bool(recipe.induction or recipe.refinement)
        chosen.append(PartHead(recipe.parts, recipe.part_width, recipe.part_dropout, refinable))
    if recipe.pose:
        if not annotations.keypoints:
            raise InputError("pose needs body points of the images: give keypoints", "keypoints")
        chosen.append(PoseHead(annotations.keypoints, recipe.pose_width))
    if recipe.attribute_weight:
        schema = _schema(annotations)
        chosen.append(AttributeHead(len(schema.names), schema.exclusive))
    return chosen


def _schema(annotations: Annotations) -> AttributeSchema:
    if annotations.schema is None:
        raise InputError(
            "attributes of the identities are learned from a table: give attributes", "attributes"
        )
    return annotations.schema


def build_members(
    recipe: Recipe, num_identities: int, annotations: Annotations = NONE
) -> list[keras.Model]:
    """The untrained models of a recipe: one for each member, or a single one."""
    return [
        build_model(replace(recipe, backbone=name), num_identities, annotations)
        for name in recipe.backbones
    ]


def start_from(model: keras.Model, run: str) -> list[str]:
    """Gives layers the weights of the layers of the same name and shapes in a run's model.

    A backbone counts as one layer, so that a model for larger images, or of tracklets, can start
    from one for single small images; and classifiers of other identities stay as they are.

    Returns:
        The names of the layers with weights that were left as they are.

    Raises:
        InputError: no such run, or none of its layers fits the backbone.
    """
    trained = {layer.name: layer for layer in Run(run).load_model().layers}
    left = []
    for layer in model.layers:
        weights = layer.get_weights()
        given = trained[layer.name].get_weights() if layer.name in trained else []
        if [w.shape for w in weights] == [w.shape for w in given]:
            layer.set_weights(given)
        elif weights:
            left.append(layer.name)
    backbones = [layer.name for layer in model.layers if isinstance(layer, keras.Model)]
    if set(backbones) & set(left):
        raise InputError(
            f"a model starts from a run with the same backbone: that of {run!r} is another than "
            f"{', '.join(backbones)}; name the backbone that it was trained with"
        )
    return left


def load_teacher(recipe: Recipe, num_identities: int) -> keras.Model | None:
    """The trained model that a recipe learns from, if it names one.

    Raises:
        InputError: someone to learn from but nothing of theirs, or the other way round; a teacher
            for other images or identities.
    """
    if bool(recipe.distillation) != bool(recipe.teacher or len(recipe.backbones) > 1):
        raise InputError(
            "models learn from a teacher or from each other by distillation: received "
            f"distillation={recipe.distillation!r}, teacher={recipe.teacher!r} and members="
            f"{recipe.members!r}; give distillation=logits:1, say, and a teacher (the run folder "
            "of a trained model) or several members, or none of them"
        )
    if not recipe.teacher:
        return None
    model = Run(recipe.teacher).load_model()
    seen = models.image_size(model)
    if seen != recipe.image_size:
        raise InputError(
            f"teacher and student see the same images: the teacher {recipe.teacher!r} sees "
            f"{seen[0]}×{seen[1]} pixels, the student "
            f"{recipe.height}×{recipe.width}; give the height and width of the teacher"
        )
    takes = models.input_names(model)
    if takes != ({"images", "keypoints"} if recipe.pose else {"images"}):
        raise InputError(
            f"teacher and student see the same: the teacher {recipe.teacher!r} takes "
            f"{' and '.join(sorted(takes))}, a student {'with' if recipe.pose else 'without'} pose "
            "does not; give another teacher"
        )
    classes = model.output["logits"].shape[-1] if "logits" in model.output else "no"
    if "logits" in recipe.distillation_weights and classes != num_identities:
        raise InputError(
            f"logits are distilled identity by identity: the teacher {recipe.teacher!r} has "
            f"{classes} identities, the images {num_identities}; distill ranks or distances, or "
            "give a teacher trained on these images"
        )
    return model


def build_objective(recipe: Recipe, annotations: Annotations = NONE) -> Objective:
    """`identity_weight · identity loss(logits) + metric_weight · metric loss(features)`.

    Of tracklets also `frame_weight` times the same of their single frames. With stripes also
    `local_weight · aligned triplet loss(features, local)`, which mines by the
    distance that the metric loss compares, and of stripes of length 1 if that normalises; with
    parts the identity loss is the sum over theirs. With pose also `pose_weight · identity_weight ·
    Σ c CE` of the visible parts; with attributes `attribute_weight · mean attribute loss`.
    """
    identity = build_identity_loss(recipe)
    logits = "part_logits" if recipe.parts else "logits"
    terms = [
        LossTerm("identity", identity, logits, weight=recipe.identity_weight),
        LossTerm("metric", build_metric_loss(recipe), "features", weight=recipe.metric_weight),
    ]
    if recipe.temporal:
        terms += [
            LossTerm(
                f"frame_{term.name}",
                term.loss,
                f"frame_{term.output}",
                "frame_identity",
                recipe.frame_weight * term.weight,
            )
            for term in terms
        ]
    if recipe.stripes:
        aligned = losses.AlignedTripletLoss(**_margin(recipe), **_given(recipe, "normalize"))
        terms.append(LossTerm("local", aligned, ("features", "local"), weight=recipe.local_weight))
    if recipe.pose:
        visible = losses.VisibleIdentityLoss(recipe.smoothing)
        weight = recipe.pose_weight * recipe.identity_weight
        terms.append(LossTerm("pose", visible, ("part_logits", "visibility"), weight=weight))
    if recipe.attribute_weight:
        loss = losses.AttributeLoss(annotations.rates.tolist(), _schema(annotations).exclusive)
        weight = recipe.attribute_weight / loss.classifiers
        terms.append(LossTerm("attributes", loss, "attributes", "attributes", weight))
    return Objective(*(term for term in terms if term.weight > 0))


def build_identity_loss(recipe: Recipe) -> losses.IdentityLoss:
    """Smoothed cross-entropy, of cosines with a margin if the recipe wants one."""
    if recipe.softmax == "plain":
        return losses.IdentityLoss(recipe.smoothing)
    return losses.MarginSoftmaxLoss(
        recipe.softmax, recipe.softmax_scale, recipe.softmax_margin, recipe.smoothing
    )


def build_distillation(recipe: Recipe) -> Objective:
    """`Σ weight · distillation`, of the distances that the metric loss compares."""
    given = {
        "logits": {"temperature": recipe.temperature},
        "distances": _given(recipe, "distance", "normalize"),
        "ranks": {},
    }
    return Objective(
        *(
            distill(losses.DISTILLATION_LOSSES[name](**given[name]), weight)
            for name, weight in recipe.distillation_weights.items()
        )
    )


def build_learner(
    members: Sequence[keras.Model],
    recipe: Recipe,
    steps_per_epoch: int,
    teacher: keras.Model | None = None,
    annotations: Annotations = NONE,
) -> Learner | MutualLearner:
    """The compiled learner of a recipe: of one model, of several, of one with a teacher."""
    objective = build_objective(recipe, annotations)
    optimizers = [build_optimizer(recipe, steps_per_epoch, member) for member in members]
    if not recipe.distillation:
        learner = Learner(members[0], objective)
        learner.compile(optimizer=optimizers[0])
        return learner
    ramp_up = round(steps_per_epoch * recipe.ramp_up)
    if teacher is not None and len(members) == 1:
        mutual = Distiller(teacher, members[0], objective, build_distillation(recipe), ramp_up)
    else:
        mutual = MutualLearner(
            members,
            objective,
            build_distillation(recipe),
            recipe.graph,
            recipe.update,
            [] if teacher is None else [teacher],
            recipe.average,
            ramp_up,
        )
    mutual.compile(optimizers)
    return mutual


def _batches(
    images: PersonImages | Tracklets,
    recipe: Recipe,
    members: int,
    seed: int,
    first_epoch: int,
    cache: str | None,
) -> Any:
    """What a recipe is trained on, from an epoch on."""
    same: dict[str, Any] = {
        "identities": recipe.identities,
        "instances": recipe.instances,
        "image_size": recipe.image_size,
        "augment": recipe.augment,
        "seed": seed,
        "first_epoch": first_epoch,
        "cache": cache,
        "spread": recipe.spread,
    }
    if isinstance(images, Tracklets):
        return pk_clips(images, frames=recipe.frames, **same)
    views = members if recipe.own_views and members > 1 else None
    return pk_batches(images, views=views, **same)


def _given(recipe: Recipe, *names: str) -> dict[str, Any]:
    """What the recipe says of these, and nothing of what it leaves open."""
    return {name: value for name in names if (value := getattr(recipe, name)) is not None}


def build_metric_loss(recipe: Recipe) -> losses.MetricLoss:
    """The metric loss of a recipe, with its own defaults where the recipe says nothing."""
    given = _margin(recipe) | _given(recipe, "distance", "normalize")
    return losses.METRIC_LOSSES[recipe.metric_loss](**given)


def _margin(recipe: Recipe) -> dict[str, Any]:
    """The margin, if the recipe has one; None stands for the soft margin."""
    return {"margin": None} if recipe.soft_margin else _given(recipe, "margin")


def build_optimizer(
    recipe: Recipe, steps_per_epoch: int, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Adam, or AdamW that spares biases and normalisations, under the recipe's schedule.

    With `new_rate` or `freeze` it is `RatedAdam`, by which the backbone is told from new layers.
    """
    rate = schedule(
        recipe.schedule,
        recipe.learning_rate,
        steps_per_epoch * recipe.epochs,
        round(steps_per_epoch * recipe.warmup),
    )
    average = {"use_ema": True, "ema_momentum": recipe.ema} if recipe.ema else {}
    if recipe.new_rate != 1 or recipe.freeze:
        frozen = round(steps_per_epoch * recipe.freeze)
        new = new_variables(model)
        return RatedAdam(rate, new, recipe.new_rate, frozen, recipe.weight_decay, **average)
    if not recipe.weight_decay:
        return keras.optimizers.Adam(rate, **average)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, **average)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


@contextmanager
def sized(
    members: Sequence[keras.Model], recipe: Recipe, num_identities: int, annotations: Annotations
) -> Iterator[Sequence[keras.Model]]:
    """Models for images of the recipe's size, of which the members have the weights afterwards.

    The members themselves, or copies of them if they are for images of another size.
    """
    if models.image_size(members[0]) == recipe.image_size:
        yield members
        return
    copies = build_members(replace(recipe, weights="none"), num_identities, annotations)
    for copy, member in zip(copies, members, strict=True):
        copy.set_weights(member.get_weights())
    yield copies
    for copy, member in zip(copies, members, strict=True):
        member.set_weights(copy.get_weights())


def fit(
    model: keras.Model | Sequence[keras.Model],
    images: PersonImages | Tracklets,
    recipe: Recipe,
    run: Run,
    flags: dict[str, Any],
    *,
    schema: AttributeSchema | None = None,
    teacher: keras.Model | None = None,
    seed: int = 0,
    cache: str | None = None,
    evaluation: RetrievalEvaluation | None = None,
    verbose: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Any:
    """Trains `model` in place by the recipe; a run that was interrupted goes on where it was.

    Args:
        model: of `build_model`, or the list of `build_members`; in its initial state also when
            a run is resumed.
        images: the training images; tracklets for a recipe with `temporal`.
        recipe: what to do.
        run: where backups, history and TensorBoard logs go.
        flags: what is recorded of how the run was made; a run is resumed with the same only.
        schema: of the images' column "attributes".
        teacher: of `load_teacher`.
        seed: of the sampling and the augmentation.
        cache: see `keras_reid.data.pk_batches`.
        evaluation: scores the model during training.
        verbose, callbacks: see `keras.Model.fit`.

    Returns:
        The model, or models, with the moving average of the weights if the recipe keeps one.
    """
    members = [model] if isinstance(model, keras.Model) else list(model)
    run.check(flags)
    annotations = Annotations.of(images, schema)
    steps = pk_steps(images, recipe.identities, recipe.instances)
    begin = 0
    for number, phase in enumerate(recipe.phases, start=1):
        end = begin + phase.recipe.epochs
        with (
            sized(members, phase.recipe, len(images.classes()[0]), annotations) as learning,
            prepared(learning, phase),
        ):
            learner = build_learner(learning, phase.recipe, steps, teacher, annotations)
            backup = Backup(run.backup_file(number), steps)
            # A later phase began with what its own backup holds.
            first = begin + backup.restore(learner)
            if first < end and not run.backup_file(number + 1).exists():
                batches = _batches(images, phase.recipe, len(members), seed, first, cache)
                run.start(flags)
                learner.fit(
                    batches,
                    epochs=end,
                    initial_epoch=first,
                    steps_per_epoch=steps,
                    shuffle=False,
                    verbose=verbose,
                    callbacks=[
                        *([evaluation] if evaluation else []),
                        CollapseMonitor(recipe.identities, recipe.instances),
                        History(run.history_file, first),
                        keras.callbacks.TensorBoard(run.logs, write_graph=False),
                        backup,
                        *callbacks,
                    ],
                )
            # A later phase begins with the averages of this one, and so does a resumed one.
            for optimizer, variables in optimized(learner):
                optimizer.finalize_variable_values(variables)
        begin = end
    run.save_models(members)
    return model
