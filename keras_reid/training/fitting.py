"""From a recipe and images to a trained model."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from keras_reid import losses, models
from keras_reid.data import (
    AttributeSchema,
    PersonImages,
    from_service,
    pk_batches,
    pk_clips,
    pk_steps,
)
from keras_reid.data.pipeline import check_service
from keras_reid.errors import InputError
from keras_reid.models.heads import Head
from keras_reid.training.callbacks import (
    Backup,
    CollapseMonitor,
    FiniteLoss,
    History,
    RetrievalEvaluation,
)
from keras_reid.training.learner import GraphLearner, Learner
from keras_reid.training.methods import Annotations
from keras_reid.training.objective import LossTerm, Objective
from keras_reid.training.rates import RatedAdam, new_variables
from keras_reid.training.recipes import Recipe
from keras_reid.training.replicas import Replicas
from keras_reid.training.runs import Run
from keras_reid.training.schedules import schedule

NONE = Annotations()


def build_model(
    recipe: Recipe, num_identities: int, annotations: Annotations = NONE
) -> keras.Model:
    """The untrained model of a recipe.

    Raises:
        InputError: a recipe with pose or attributes without the annotations that they need.
    """
    classes = num_identities if recipe.classifies else None
    common: dict[str, Any] = {
        "weights": recipe.weights,
        "pooling": recipe.pooling,
        "neck": recipe.neck,
        "last_stride": recipe.last_stride,
        "width": recipe.embedding_width or None,
        "mixstyle": recipe.mixstyle,
        "instance_norm": recipe.instance_norm,
    }
    for method in recipe.methods:
        if (model := method.model(recipe, classes, **common)) is not None:
            return model
    return models.build(
        recipe.backbone,
        classes,
        recipe.image_size,
        **common,
        embedding=recipe.embedding,
        classifier="linear" if recipe.softmax == "plain" else "cosine",
        heads=build_heads(recipe, annotations),
    )


def build_heads(recipe: Recipe, annotations: Annotations = NONE) -> list[Head]:
    """The heads of the recipe's methods."""
    return [head for method in recipe.methods for head in method.heads(annotations)]


def build_members(
    recipe: Recipe,
    num_identities: int,
    annotations: Annotations = NONE,
    replicas: Replicas | None = None,
) -> list[keras.Model]:
    """The untrained models of a recipe: one for each member, or a single one.

    Their variables are of all `replicas`, if there are several.
    """
    with (replicas or Replicas()).strategy.scope():
        return [
            build_model(recipe.replace(backbone=name), num_identities, annotations)
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


def build_objective(recipe: Recipe, annotations: Annotations = NONE) -> Objective:
    """`identity_weight · identity loss(logits) + metric_weight · metric loss(features)`.

    And what the recipe's methods make of it.
    """
    terms = [
        LossTerm("identity", build_identity_loss(recipe), "logits", weight=recipe.identity_weight),
        LossTerm("metric", build_metric_loss(recipe), "features", weight=recipe.metric_weight),
    ]
    for method in recipe.methods:
        terms = method.terms(terms, recipe, annotations)
    return Objective(*(term for term in terms if term.weight > 0))


def build_identity_loss(recipe: Recipe) -> losses.IdentityLoss:
    """Smoothed cross-entropy, of cosines with a margin if the recipe wants one."""
    if recipe.softmax == "plain":
        return losses.IdentityLoss(recipe.smoothing)
    return losses.MarginSoftmaxLoss(
        recipe.softmax, recipe.softmax_scale, recipe.softmax_margin, recipe.smoothing
    )


def build_learner(
    members: Sequence[keras.Model],
    recipe: Recipe,
    steps_per_epoch: int,
    teacher: keras.Model | None = None,
    annotations: Annotations = NONE,
    replicas: Replicas | None = None,
) -> GraphLearner:
    """The compiled learner of a recipe: of one model, of several, of one with a teacher."""
    replicas = replicas or Replicas()
    objective = build_objective(recipe, annotations)
    with replicas.strategy.scope():
        optimizers = [build_optimizer(recipe, steps_per_epoch, member) for member in members]
    if not recipe.distillation.active:
        learner: GraphLearner = Learner(members[0], objective)
    else:
        learner = recipe.distillation.learner(members, objective, recipe, steps_per_epoch, teacher)
    replicas.gather(learner.objective, learner.distillation)
    learner.compile(optimizers)
    return learner


def steps_per_epoch(images: PersonImages, recipe: Recipe) -> int:
    """Return the batches of an epoch, of images or of clips of tracklets.

    Raises:
        InputError: the images show fewer than two persons, or fewer than a batch needs.
    """
    names = images.classes()[0]
    if len(names) < 2:
        raise InputError(
            f"at least 2 persons are required to train on, got {len(names)} "
            f"({', '.join(map(str, names))}): add images of others"
        )
    sampled = images.per_tracklet() if recipe.tracklets.active else images
    return pk_steps(sampled, recipe.identities, recipe.instances)


def _batches(
    images: PersonImages,
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
    if recipe.tracklets.active:
        return pk_clips(images, frames=recipe.tracklets.frames, **same)
    views = members if recipe.distillation.own_views and members > 1 else None
    return pk_batches(images, views=views, **same)


def build_metric_loss(recipe: Recipe) -> losses.MetricLoss:
    """The metric loss of a recipe, with its own defaults where the recipe says nothing."""
    given = recipe.metric_settings("margin", "distance", "normalize")
    return losses.METRIC_LOSSES[recipe.metric_loss](**given)


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
    members: Sequence[keras.Model],
    recipe: Recipe,
    num_identities: int,
    annotations: Annotations,
    replicas: Replicas,
) -> Iterator[Sequence[keras.Model]]:
    """Models for images of the recipe's size, of which the members have the weights afterwards.

    The members themselves, or copies of them if they are for images of another size.
    """
    if models.image_size(members[0]) == recipe.image_size:
        yield members
        return
    copies = build_members(recipe.replace(weights="none"), num_identities, annotations, replicas)
    for copy, member in zip(copies, members, strict=True):
        copy.set_weights(member.get_weights())
    yield copies
    for copy, member in zip(copies, members, strict=True):
        member.set_weights(copy.get_weights())


def fit(
    model: keras.Model | Sequence[keras.Model],
    images: PersonImages,
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
    replicas: Replicas | None = None,
    data_service: str | None = None,
) -> Any:
    """Trains `model` in place by the recipe; a run that was interrupted goes on where it was.

    Args:
        model: of `build_model`, or the list of `build_members`; in its initial state also when
            a run is resumed.
        images: the training images, with a column "tracklet" for a recipe with `temporal`.
        recipe: what to do.
        run: where backups, history and TensorBoard logs go.
        flags: what is recorded of how the run was made; a run is resumed with the same only.
        schema: of the images' column "attributes".
        teacher: of `load_teacher`.
        seed: of the sampling and the augmentation.
        cache: see `keras_reid.data.pk_batches`.
        evaluation: scores the model during training.
        verbose, callbacks: see `keras.Model.fit`.
        replicas: that train together, of which the chief writes.
        data_service: see `keras_reid.data.from_service`.

    Returns:
        The model, or models, with the moving average of the weights if the recipe keeps one.
    """
    members = [model] if isinstance(model, keras.Model) else list(model)
    replicas = replicas or Replicas()
    run.check(flags)
    if data_service:
        check_service(images, cache)
    annotations = Annotations.of(images, schema)
    steps = steps_per_epoch(images, recipe)
    begin = 0
    for number, phase in enumerate(recipe.phases, start=1):
        end = begin + phase.recipe.epochs
        with (
            sized(
                members,
                recipe.replace(height=phase.recipe.height, width=phase.recipe.width),
                len(images.classes()[0]),
                annotations,
                replicas,
            ) as learning,
            phase.prepared(learning),
            replicas.synchronized(learning),
            replicas.together(),
            ExitStack() as stack,
        ):
            learner = build_learner(learning, phase.recipe, steps, teacher, annotations, replicas)
            backup = Backup(run.backup_file(number), steps)
            # A later phase began with what its own backup holds.
            first = begin + backup.restore(learner)
            if first < end and not run.backup_file(number + 1).exists():
                batches = _batches(images, phase.recipe, len(members), seed, first, cache)
                if data_service:
                    batches = from_service(batches, data_service)
                size = phase.recipe.identities * phase.recipe.instances
                # What is saved of several workers is read by all, who agree on sums of metrics.
                scratch = stack.enter_context(TemporaryDirectory())
                writing = [Backup(Path(scratch) / "backup.weights.h5", steps)]
                if replicas.is_chief:
                    run.start(flags)
                    writing = [
                        *([evaluation] if evaluation else []),
                        History(run.history_file, first),
                        keras.callbacks.TensorBoard(run.logs, write_graph=False),
                        backup,
                        *callbacks,
                    ]
                learner.fit(
                    replicas.shared(batches, size),
                    epochs=end,
                    initial_epoch=first,
                    steps_per_epoch=steps,
                    shuffle=False,
                    verbose=verbose,
                    callbacks=[
                        FiniteLoss(),
                        CollapseMonitor(recipe.identities, recipe.instances),
                        *writing,
                    ],
                )
            # A later phase begins with the averages of this one, and so does a resumed one.
            for optimizer, variables in learner.optimized:
                optimizer.finalize_variable_values(variables)
        begin = end
    if replicas.is_chief:
        run.save_models(members)
    return model
