"""Models, losses, optimizers and learners of a recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_reid import losses, models
from keras_reid.data import AttributeSchema, PersonImages, pk_steps
from keras_reid.errors import Shown, invalid, name_some
from keras_reid.inference import Embedder
from keras_reid.models.heads import Head
from keras_reid.training.methods.method import Annotations, LossSettings, Term
from keras_reid.training.optimizers import RatedAdam, new_variables
from keras_reid.training.recipe import NONE, Recipe
from keras_reid.training.replicas import Replicas
from keras_reid.training.runs import Run
from keras_reid.training.schedules import schedule


@dataclass(frozen=True)
class Plan:
    """Values of a training run that follow from its recipe and images.

    Attributes:
        recipe: the recipe.
        images: the training images.
        num_identities: number of persons on the images.
        steps: number of batches in an epoch.
        annotations: columns of the images that the model requires.
        replicas: replicas that train together.
        teacher: embedder of the views of the images; None: no views.
    """

    recipe: Recipe
    images: PersonImages
    num_identities: int
    steps: int
    annotations: Annotations
    replicas: Replicas
    teacher: Embedder | None = None

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        images: PersonImages,
        schema: AttributeSchema | None = None,
        replicas: Replicas | None = None,
        teacher: Embedder | None = None,
    ) -> "Plan":
        """Return the plan of a training run.

        Args:
            recipe: the recipe.
            images: training images, with a column "tracklet" for a recipe with `temporal`.
            schema: schema of the column "attributes" of the images.
            replicas: replicas that train together; None: only this process.
            teacher: embedder for a recipe with `views_per_round`.

        Raises:
            InputError: images of fewer than two persons, of too few for a batch, without identity,
                or without a column of the recipe; or a recipe with views and no teacher.
        """
        columns = {*images.columns} - ({"attributes"} if schema is None else set())
        if missing := sorted(recipe.columns - columns):
            raise invalid(
                "images", f"images with {' and '.join(missing)} for this recipe", Shown("none")
            )
        sampled = images
        for method in recipe.methods:
            sampled = method.sampled(sampled)
        count = _num_identities(recipe, sampled)
        annotations = Annotations.of(images, schema, teacher)
        recipe.distillation.check_labels(annotations)
        if not recipe.labeled:
            images, sampled = images.anonymous(), sampled.anonymous()
        groups = groups_of(recipe)
        steps = recipe.distillation.view_steps(groups)
        steps = steps or pk_steps(sampled, *groups, **recipe.sources.sampling)
        return cls(recipe, images, count, steps, annotations, replicas or Replicas(), teacher)

    def members(self, recipe: Recipe | None = None) -> list[keras.Model]:
        """Return the untrained models, one for each member, with variables on all replicas.

        Args:
            recipe: recipe of a phase; None: that of the plan.
        """
        recipe = recipe or self.recipe
        with self.replicas.strategy.scope():
            return [
                build_model(recipe.replace(backbone=name), self.num_identities, self.annotations)
                for name in recipe.backbones
            ]


def groups_of(recipe: Recipe) -> tuple[int, int]:
    """Return P and K of the batches of a recipe: P·K and 1 if no loss compares identities."""
    p, k = recipe.num_identities_per_batch, recipe.num_instances
    return (p, k) if recipe.labeled else (p * k, 1)


def _num_identities(recipe: Recipe, images: PersonImages) -> int:
    """Return the number of persons; raise if there are too few, or images without identity."""
    if images.unlabeled.any() and not recipe.unlabeled:
        paths = images.path[images.unlabeled].tolist()
        received = Shown(f"{len(paths)} without ({name_some(paths, most=3)})")
        fix = "Fill in the identities, leave these images out, or use the recipe distill."
        raise invalid("images", "images with identities for this recipe", received, fix)
    names = list(map(str, images.classes()[0]))
    if len(names) < 2 and recipe.labeled:
        received = Shown(f"{len(names)} ({', '.join(names)})")
        raise invalid("images", "images of at least 2 persons", received)
    return len(names)


def build_model(
    recipe: Recipe, num_identities: int, annotations: Annotations = NONE
) -> keras.Model:
    """Return the untrained model of a recipe.

    Args:
        recipe: the recipe.
        num_identities: number of classes.
        annotations: columns of the training images.
    """
    classified = recipe.identity_weight > 0 or recipe.pretraining.pretrain_epochs > 0
    classes = num_identities if classified else None
    names = ("weights", "pooling", "neck", "last_stride", "mixstyle", "instance_norm")
    common: dict[str, Any] = {name: getattr(recipe, name) for name in names}
    common["width"] = recipe.embedding_dim or None
    for method in recipe.methods:
        model = method.model(recipe.backbone, classes, recipe.image_size, **common)
        if model is not None:
            return model
    model = models.build(
        recipe.backbone,
        classes,
        recipe.image_size,
        **common,
        embedding=recipe.embedding,
        classifier="linear" if recipe.softmax == "plain" else "cosine",
        heads=build_heads(recipe, annotations),
    )
    for method in recipe.methods:
        model = method.extended(model, annotations)
    return model


def build_heads(recipe: Recipe, annotations: Annotations = NONE) -> list[Head]:
    """Return the heads of the methods of a recipe.

    Args:
        recipe: the recipe.
        annotations: columns of the training images.
    """
    return [head for method in recipe.methods for head in method.heads(annotations)]


def start_from(model: keras.Model, run: str) -> list[str]:
    """Copy the weights of layers with the same name and shapes from the model of a run.

    A backbone counts as one layer. The model can be for larger images or for tracklets, and have
    a classifier of other identities.

    Args:
        model: model that is changed.
        run: run folder.

    Returns:
        The names of the layers that keep their initial weights.

    Raises:
        InputError: the run does not exist or has another backbone.
    """
    trained = {layer.name: layer.get_weights() for layer in Run(run).load_model().layers}
    left = []
    for layer in model.layers:
        weights, copied = layer.get_weights(), trained.get(layer.name, [])
        if [w.shape for w in weights] == [w.shape for w in copied]:
            layer.set_weights(copied)
        elif weights:
            left.append(layer.name)
    backbones = {layer.name for layer in model.layers if isinstance(layer, keras.Model)}
    if backbones & {*left}:
        raise invalid("init_from", f"a run with the backbone {', '.join(sorted(backbones))}", run)
    return left


def build_losses(
    recipe: Recipe, annotations: Annotations = NONE, gather: bool = False
) -> dict[str, Any]:
    """Return the arguments `loss` and `loss_weights` of `compile`.

    `identity_weight · identity loss(logits) + metric_weight · metric loss(features)`, changed by
    the methods of the recipe.

    Args:
        recipe: the recipe.
        annotations: columns of the images for the losses.
        gather: compare over all replicas.
    """
    settings = recipe.loss_settings(annotations, gather)
    terms = [
        Term("logits", build_identity_loss(recipe), recipe.identity_weight),
        Term("features", build_metric_loss(recipe, settings), recipe.metric_weight),
    ]
    for method in recipe.methods:
        terms = method.terms(terms, settings)
    loss: dict[str, list[Any]] = {}
    weights: dict[str, list[float]] = {}
    for output, one, weight in terms:
        if weight > 0:
            loss.setdefault(output, []).append(one)
            weights.setdefault(output, []).append(weight)
    return {"loss": loss, "loss_weights": weights}


def build_identity_loss(recipe: Recipe) -> losses.IdentityLoss:
    """Return the smoothed cross-entropy, or a softmax with a margin, as the recipe states."""
    if recipe.softmax == "plain":
        return losses.IdentityLoss(recipe.label_smoothing)
    return losses.MarginSoftmaxLoss(
        recipe.softmax, recipe.softmax_scale, recipe.softmax_margin, recipe.label_smoothing
    )


def build_metric_loss(recipe: Recipe, settings: LossSettings) -> losses.MetricLoss:
    """Return the metric loss of a recipe, with the settings that are not None."""
    arguments = settings.of_metric("margin", "distance", "normalize")
    return losses.METRIC_LOSSES[recipe.metric_loss](**arguments)


def build_optimizer(
    recipe: Recipe, steps_per_epoch: int, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Return Adam, or AdamW without decay of biases and normalization, with the schedule.

    With `head_lr_multiplier` or `freeze_epochs` it is `RatedAdam`, which treats the backbone
    and new layers differently.

    Args:
        recipe: recipe of a phase.
        steps_per_epoch: number of steps of an epoch.
        model: model to train, of one backbone.
    """
    total = steps_per_epoch * recipe.epochs
    warmup = round(steps_per_epoch * recipe.warmup)
    rate = schedule(recipe.schedule, recipe.learning_rate, total, warmup)
    average: dict[str, Any] = {
        "use_ema": recipe.ema_momentum > 0,
        "ema_momentum": recipe.ema_momentum,
    }
    if recipe.head_lr_multiplier != 1 or recipe.freeze_epochs:
        frozen = round(steps_per_epoch * recipe.freeze_epochs)
        values = (new_variables(model), recipe.head_lr_multiplier, frozen, recipe.weight_decay)
        return RatedAdam(rate, *values, **average)
    if not recipe.weight_decay:
        return keras.optimizers.Adam(rate, **average)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, **average)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def build_learner(
    members: Sequence[keras.Model], recipe: Recipe, plan: Plan, teacher: keras.Model | None = None
) -> keras.Model:
    """Return the compiled model that trains the members in `fit`.

    Args:
        members: untrained models of the recipe.
        recipe: recipe of a phase of the plan.
        plan: the plan.
        teacher: trained teacher.
    """
    gather = plan.replicas.count > 1
    arguments = build_losses(recipe, plan.annotations, gather)
    settings = recipe.loss_settings(plan.annotations, gather)
    with plan.replicas.strategy.scope():
        optimizers = [build_optimizer(recipe, plan.steps, member) for member in members]
        learner, own = recipe.distillation.learner(members, teacher, plan.steps, settings)
        optimizer = optimizers[0] if learner is members[0] else optimizers
        learner.compile(optimizer, **arguments, **own)
    return learner
