"""Models, losses, optimizers and learners of a recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_reid import losses, models
from keras_reid.data import AttributeSchema, PersonImages, pk_steps
from keras_reid.errors import InputError
from keras_reid.models.heads import Head
from keras_reid.training.methods import Annotations, LossSettings, WeightedLoss
from keras_reid.training.optimizers import RatedAdam, new_variables
from keras_reid.training.recipes import Recipe
from keras_reid.training.replicas import Replicas
from keras_reid.training.runs import Run
from keras_reid.training.schedules import schedule

NONE = Annotations()


@dataclass(frozen=True)
class Plan:
    """What a training depends on, resolved once from recipe and images.

    Attributes:
        recipe: the recipe.
        images: the training images.
        num_identities: persons on the images.
        steps: batches in an epoch.
        annotations: columns of the images on which the model depends.
        replicas: replicas that train together.
    """

    recipe: Recipe
    images: PersonImages
    num_identities: int
    steps: int
    annotations: Annotations
    replicas: Replicas

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        images: PersonImages,
        schema: AttributeSchema | None = None,
        replicas: Replicas | None = None,
    ) -> "Plan":
        """Return the plan of a training.

        Args:
            recipe: the recipe.
            images: training images, with a column "tracklet" for a recipe with `temporal`.
            schema: schema of the column "attributes" of the images.
            replicas: replicas that train together; None: this process alone.

        Raises:
            InputError: the images show fewer than two persons, or fewer than a batch needs.
        """
        names = images.classes()[0]
        if len(names) < 2:
            raise InputError(
                f"at least 2 persons are required to train on, got {len(names)} "
                f"({', '.join(map(str, names))}): add images of others"
            )
        sampled = images
        for method in recipe.methods:
            sampled = method.sampled(sampled)
        steps = pk_steps(sampled, recipe.num_identities_per_batch, recipe.num_instances)
        annotations = Annotations.of(images, schema)
        return cls(recipe, images, len(names), steps, annotations, replicas or Replicas())

    def members(self, recipe: Recipe | None = None) -> list[keras.Model]:
        """Return the untrained models: one for each member, or a single one.

        Their variables are on all replicas.
        """
        recipe = recipe or self.recipe
        with self.replicas.strategy.scope():
            return [
                build_model(recipe.replace(backbone=name), self.num_identities, self.annotations)
                for name in recipe.backbones
            ]


def build_model(
    recipe: Recipe, num_identities: int, annotations: Annotations = NONE
) -> keras.Model:
    """Return the untrained model of a recipe.

    Raises:
        InputError: a recipe with pose or attributes without the annotations that they need.
    """
    classes = num_identities if recipe.classifies else None
    common: dict[str, Any] = {
        "weights": recipe.weights,
        "pooling": recipe.pooling,
        "neck": recipe.neck,
        "last_stride": recipe.last_stride,
        "width": recipe.embedding_dim or None,
        "mixstyle": recipe.mixstyle,
        "instance_norm": recipe.instance_norm,
    }
    for method in recipe.methods:
        model = method.model(recipe.backbone, classes, recipe.image_size, **common)
        if model is not None:
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
    """Return the heads of the methods of a recipe."""
    return [head for method in recipe.methods for head in method.heads(annotations)]


def start_from(model: keras.Model, run: str) -> list[str]:
    """Copy the weights of layers with the same name and shapes from the model of a run.

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


def build_losses(
    recipe: Recipe, annotations: Annotations = NONE, gather: bool = False
) -> dict[str, Any]:
    """Return the arguments `loss` and `loss_weights` of `compile`.

    `identity_weight · identity loss(logits) + metric_weight · metric loss(features)`, as changed by
    the methods of the recipe.

    Args:
        recipe: the recipe.
        annotations: columns of the images on which losses depend.
        gather: compare over all replicas.
    """
    settings = recipe.loss_settings(gather)
    listed = [
        WeightedLoss("logits", build_identity_loss(recipe), recipe.identity_weight),
        WeightedLoss("features", build_metric_loss(recipe, settings), recipe.metric_weight),
    ]
    for method in recipe.methods:
        listed = method.losses(listed, settings, annotations)
    loss: dict[str, list[Any]] = {}
    weights: dict[str, list[float]] = {}
    for output, one, weight in listed:
        if weight > 0:
            loss.setdefault(output, []).append(one)
            weights.setdefault(output, []).append(weight)
    return {"loss": loss, "loss_weights": weights}


def build_identity_loss(recipe: Recipe) -> losses.IdentityLoss:
    """Return smoothed cross-entropy, of cosines with a margin if the recipe asks for it."""
    if recipe.softmax == "plain":
        return losses.IdentityLoss(recipe.label_smoothing)
    return losses.MarginSoftmaxLoss(
        recipe.softmax, recipe.softmax_scale, recipe.softmax_margin, recipe.label_smoothing
    )


def build_metric_loss(recipe: Recipe, settings: LossSettings) -> losses.MetricLoss:
    """Return the metric loss of a recipe, with its own defaults where the recipe has none."""
    arguments = settings.of_metric("margin", "distance", "normalize")
    return losses.METRIC_LOSSES[recipe.metric_loss](**arguments)


def build_optimizer(
    recipe: Recipe, steps_per_epoch: int, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Return Adam, or AdamW without decay of biases and normalization, with the schedule.

    With `head_lr_multiplier` or `freeze_epochs` it is `RatedAdam`, which treats the backbone
    and new layers differently.
    """
    rate = schedule(
        recipe.schedule,
        recipe.learning_rate,
        steps_per_epoch * recipe.epochs,
        round(steps_per_epoch * recipe.warmup),
    )
    average = {"use_ema": True, "ema_momentum": recipe.ema_momentum} if recipe.ema_momentum else {}
    if recipe.head_lr_multiplier != 1 or recipe.freeze_epochs:
        frozen = round(steps_per_epoch * recipe.freeze_epochs)
        new = new_variables(model)
        return RatedAdam(
            rate, new, recipe.head_lr_multiplier, frozen, recipe.weight_decay, **average
        )
    if not recipe.weight_decay:
        return keras.optimizers.Adam(rate, **average)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, **average)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def build_learner(
    members: Sequence[keras.Model], recipe: Recipe, plan: Plan, teacher: keras.Model | None = None
) -> keras.Model:
    """Return the compiled model whose `fit` trains the members by a recipe.

    Args:
        members: untrained models of the recipe.
        recipe: recipe of a phase of the plan.
        plan: the plan.
        teacher: trained model to learn from.
    """
    gather = plan.replicas.count > 1
    arguments = build_losses(recipe, plan.annotations, gather)
    with plan.replicas.strategy.scope():
        optimizers = [build_optimizer(recipe, plan.steps, member) for member in members]
        for method in recipe.methods:
            made = method.learner(members, teacher, plan.steps, recipe.loss_settings(gather))
            if made is not None:
                learner, more = made
                learner.compile(optimizers, **arguments, **more)
                return learner
        members[0].compile(optimizers[0], **arguments)
    return members[0]
