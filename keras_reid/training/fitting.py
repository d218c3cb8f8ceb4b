"""The loop over the phases of a training, with backups."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from keras_reid import models
from keras_reid.data import from_service, pk_batches
from keras_reid.data.pipeline import check_service
from keras_reid.training.build import Plan, build_learner
from keras_reid.training.callbacks import (
    Backup,
    CollapseMonitor,
    FiniteLoss,
    History,
    RetrievalEvaluation,
    members_of,
)
from keras_reid.training.recipes import Recipe
from keras_reid.training.runs import Run


def fit(
    model: keras.Model | Sequence[keras.Model],
    plan: Plan,
    run: Run,
    flags: dict[str, Any],
    *,
    teacher: keras.Model | None = None,
    seed: int = 0,
    cache: str | None = None,
    evaluation: RetrievalEvaluation | None = None,
    verbose: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    data_service: str | None = None,
) -> Any:
    """Train models in place by a recipe; an interrupted run continues where it stopped.

    Args:
        model: model of `build.build_model`, or the list of `Plan.members`, in its initial state,
            also when a run is resumed.
        plan: recipe and images, see `build.Plan.of`.
        run: folder of backups, history and TensorBoard logs.
        flags: what is recorded of how the run was started; a run is resumed with the same only.
        teacher: trained model of `Recipe.load_teacher`.
        seed: seed of sampling and augmentation.
        cache: see `keras_reid.data.pk_batches`.
        evaluation: scores the model during training.
        verbose, callbacks: see `keras.Model.fit`.
        data_service: see `keras_reid.data.from_service`.

    Returns:
        The model, or models, with the moving average of the weights if the recipe keeps one.

    Raises:
        InputError: a finished run, one with other flags, or images that cannot be read.
    """
    members = [model] if isinstance(model, keras.Model) else list(model)
    recipe, replicas = plan.recipe, plan.replicas
    if data_service:
        check_service(plan.images, cache)
    begin = 0
    for number, (phase_recipe, phase) in enumerate(recipe.phases, start=1):
        end = begin + phase_recipe.epochs
        with (
            sized(members, plan, phase_recipe) as learning,
            phase.prepared(learning),
            replicas.synchronized(learning),
            replicas.together(),
            ExitStack() as stack,
        ):
            learner = build_learner(learning, phase_recipe, plan, teacher)
            backup = Backup(run.backup_file(number), plan.steps)
            # A later phase began with what its own backup holds.
            first = begin + backup.restore(learner)
            if first < end and not run.backup_file(number + 1).exists():
                batches = _batches(plan, phase_recipe, seed, first, cache)
                if data_service:
                    batches = from_service(batches, data_service)
                # All workers read what is saved, because they agree on sums of metrics.
                scratch = stack.enter_context(TemporaryDirectory())
                writing = [Backup(Path(scratch) / "backup.weights.h5", plan.steps)]
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
                    replicas.shared(
                        batches, phase_recipe.num_identities_per_batch * phase_recipe.num_instances
                    ),
                    epochs=end,
                    initial_epoch=first,
                    steps_per_epoch=plan.steps,
                    shuffle=False,
                    verbose=verbose,
                    callbacks=[
                        FiniteLoss(),
                        CollapseMonitor(recipe.num_identities_per_batch, recipe.num_instances),
                        *writing,
                    ],
                )
            # A later phase begins with the averages of this one, and so does a resumed one.
            for member in members_of(learner).values():
                member.optimizer.finalize_variable_values(member.trainable_variables)
        begin = end
    if replicas.is_chief:
        run.save_models(members)
    return model


@contextmanager
def sized(
    members: Sequence[keras.Model], plan: Plan, recipe: Recipe
) -> Iterator[Sequence[keras.Model]]:
    """Models for images of the size of a phase, whose weights the members have afterwards.

    The members themselves, or copies of them if they are for images of another size.
    """
    if models.image_size(members[0]) == recipe.image_size:
        yield members
        return
    size = {"height": recipe.height, "width": recipe.width}
    copies = plan.members(plan.recipe.replace(**size, weights="none"))
    for copy, member in zip(copies, members, strict=True):
        copy.set_weights(member.get_weights())
    yield copies
    for copy, member in zip(copies, members, strict=True):
        member.set_weights(copy.get_weights())


def _batches(plan: Plan, recipe: Recipe, seed: int, first_epoch: int, cache: str | None) -> Any:
    """Return the batches of a phase, from an epoch on."""
    arguments: dict[str, Any] = {
        "num_identities_per_batch": recipe.num_identities_per_batch,
        "num_instances": recipe.num_instances,
        "image_size": recipe.image_size,
        "augment": recipe.augment,
        "seed": seed,
        "first_epoch": first_epoch,
        "cache": cache,
        "camera_balanced": recipe.camera_balanced,
    }
    make: Any = pk_batches
    for method in recipe.methods:
        make, arguments = method.batches(make, arguments)
    return make(plan.images, **arguments)
