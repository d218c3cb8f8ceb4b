"""From a recipe and images to a trained model."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_reid import losses, models
from keras_reid.data import PersonImages, pk_batches, pk_steps
from keras_reid.training.callbacks import (
    Backup,
    CollapseMonitor,
    History,
    RetrievalEvaluation,
    averaged_weights,
)
from keras_reid.training.learner import Learner
from keras_reid.training.objective import Objective, Term
from keras_reid.training.recipes import Recipe
from keras_reid.training.runs import Run
from keras_reid.training.schedules import schedule


def build_model(recipe: Recipe, num_identities: int) -> keras.Model:
    """The untrained model of a recipe."""
    return models.build(
        recipe.backbone,
        num_identities if recipe.classifies else None,
        recipe.image_size,
        weights=recipe.weights,
        pooling=recipe.pooling,
        neck=recipe.neck,
        last_stride=recipe.last_stride,
        width=recipe.embedding_width or None,
    )


def build_objective(recipe: Recipe) -> Objective:
    """`identity_weight · identity loss(logits) + metric_weight · metric loss(features)`."""
    terms = (
        Term(
            "identity",
            losses.IdentityLoss(recipe.smoothing),
            "logits",
            weight=recipe.identity_weight,
        ),
        Term("metric", build_metric_loss(recipe), "features", weight=recipe.metric_weight),
    )
    return Objective(*(term for term in terms if term.weight > 0))


def build_metric_loss(recipe: Recipe) -> losses.MetricLoss:
    """The metric loss of a recipe, with its own defaults where the recipe says nothing."""
    given: dict[str, Any] = {
        name: value
        for name in ("margin", "distance", "normalize")
        if (value := getattr(recipe, name)) is not None
    }
    if given.get("margin", 0) < 0:
        given["margin"] = None
    return losses.METRIC_LOSSES[recipe.metric_loss](**given)


def build_optimizer(recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Adam, or AdamW that spares biases and normalisations, under the recipe's schedule."""
    rate = schedule(
        recipe.schedule,
        recipe.learning_rate,
        steps_per_epoch * recipe.epochs,
        round(steps_per_epoch * recipe.warmup),
    )
    average = {"use_ema": True, "ema_momentum": recipe.ema} if recipe.ema else {}
    if not recipe.weight_decay:
        return keras.optimizers.Adam(rate, **average)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, **average)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def fit(
    model: keras.Model,
    images: PersonImages,
    recipe: Recipe,
    run: Run,
    flags: dict[str, Any],
    *,
    seed: int = 0,
    cache: str | None = None,
    evaluation: RetrievalEvaluation | None = None,
    verbose: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Model:
    """Trains `model` in place by the recipe; a run that was interrupted goes on where it was.

    Args:
        model: of `build_model`, in its initial state also when a run is resumed.
        images: the training images.
        recipe: what to do.
        run: where backups, history and TensorBoard logs go.
        flags: what is recorded of how the run was made; a run is resumed with the same only.
        seed: of the sampling and the augmentation.
        cache: see `keras_reid.data.pk_batches`.
        evaluation: scores the model during training.
        verbose, callbacks: see `keras.Model.fit`.

    Returns:
        The model, with the moving average of its weights if the recipe keeps one.
    """
    run.check(flags)
    steps = pk_steps(images, recipe.identities, recipe.instances)
    begin = 0
    for number, phase in enumerate(recipe.phases, start=1):
        end = begin + phase.epochs
        learner = Learner(model, build_objective(phase))
        learner.compile(optimizer=build_optimizer(phase, steps))
        backup = Backup(run.backup_file(number), steps)
        # A later phase began with what its own backup holds.
        first = begin + backup.restore(learner)
        if first < end and not run.backup_file(number + 1).exists():
            batches = pk_batches(
                images,
                identities=phase.identities,
                instances=phase.instances,
                image_size=phase.image_size,
                augment=phase.augment,
                seed=seed,
                first_epoch=first,
                cache=cache,
            )
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
                    CollapseMonitor(phase.identities, phase.instances),
                    History(run.history_file, first),
                    keras.callbacks.TensorBoard(run.logs, write_graph=False),
                    backup,
                    *callbacks,
                ],
            )
        begin = end
    with averaged_weights(learner):
        run.save_model(model)
    return model
