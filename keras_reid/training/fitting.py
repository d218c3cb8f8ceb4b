"""Loop over the phases of a training, with backups."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from keras_reid import models
from keras_reid.data import from_service, pk_batches
from keras_reid.data.pipeline import check_service
from keras_reid.training.build import Plan, build_learner
from keras_reid.training.callbacks import Backup, CollapseMonitor, FiniteLoss, History, members_of
from keras_reid.training.recipe import Recipe
from keras_reid.training.runs import Run

Callbacks = Sequence[keras.callbacks.Callback]


def fit(
    model: keras.Model | Sequence[keras.Model],
    plan: Plan,
    run: Run,
    flags: dict[str, Any],
    *,
    teacher: keras.Model | None = None,
    seed: int = 0,
    cache: str | None = None,
    evaluation: keras.callbacks.Callback | None = None,
    verbose: int = 1,
    callbacks: Callbacks = (),
    data_service: str | None = None,
) -> Any:
    """Train models in place by a recipe; an interrupted run resumes after its last epoch.

    Args:
        model: model of `build.build_model`, or the list of `Plan.members`, in its initial state,
            also when a run is resumed.
        plan: recipe and images, see `build.Plan.of`.
        run: folder for backups, history and TensorBoard logs.
        flags: settings that are recorded; a run is resumed only with the same ones.
        teacher: trained model of `Recipe.load_teacher`.
        seed: seed of sampling and augmentation.
        cache: see `keras_reid.data.pk_batches`.
        evaluation: callback that scores the model during training.
        verbose, callbacks: see `keras.Model.fit`.
        data_service: see `keras_reid.data.from_service`.

    Returns:
        The model, or models, with the moving average of the weights if the recipe keeps one.

    Raises:
        InputError: a finished run, one with other flags, or unreadable images.
    """
    members = [model] if isinstance(model, keras.Model) else list(model)
    if data_service:
        check_service(plan.images, cache)

    def batches(recipe: Recipe, first: int) -> Any:
        stream = _batches(plan, recipe, seed, first, cache)
        stream = from_service(stream, data_service) if data_service else stream
        size = recipe.num_identities_per_batch * recipe.num_instances
        return plan.replicas.shared(stream, size)

    def writers(first: int) -> list[keras.callbacks.Callback]:
        run.start(flags)
        board = keras.callbacks.TensorBoard(run.logs, write_graph=False)
        return [*([evaluation] if evaluation else []), History(run.history_file, first), board]

    begin = 0
    for number, (recipe, phase) in enumerate(plan.recipe.phases, start=1):
        end = begin + recipe.epochs
        with (
            sized(members, plan, recipe) as learning,
            phase.prepared(learning),
            plan.replicas.synchronized(learning),
            plan.replicas.together(),
        ):
            learner = build_learner(learning, recipe, plan, teacher)
            backup = Backup(run.backup_file(number), plan.steps)
            # A later phase begins with the weights in its own backup.
            first = begin + backup.restore(learner)
            if first < end and not run.backup_file(number + 1).exists():
                stream = batches(recipe, first)
                chief = plan.replicas.is_chief
                saving = [*writers(first), backup, *callbacks] if chief else None
                with _monitors(plan, saving) as monitors:
                    learner.fit(
                        stream,
                        epochs=end,
                        initial_epoch=first,
                        steps_per_epoch=plan.steps,
                        shuffle=False,
                        verbose=verbose,
                        callbacks=monitors,
                    )
            # A later phase begins with the averages of this one, and so does a resumed one.
            for member in members_of(learner).values():
                member.optimizer.finalize_variable_values(member.trainable_variables)
        begin = end
    if plan.replicas.is_chief:
        run.save_models(members)
    return model


@contextmanager
def _monitors(plan: Plan, saving: Callbacks | None) -> Iterator[Callbacks]:
    """Yield the callbacks of a phase.

    Args:
        plan: the plan.
        saving: callbacks that write the run; None for a worker that does not write.
    """
    recipe = plan.recipe
    collapse = CollapseMonitor(recipe.num_identities_per_batch, recipe.num_instances)
    with TemporaryDirectory() as scratch:
        if saving is None:
            # All workers read the saved variables, because they sum the metrics together.
            saving = [Backup(Path(scratch) / "backup.weights.h5", plan.steps)]
        yield [FiniteLoss(), collapse, *saving]


@contextmanager
def sized(
    members: Sequence[keras.Model], plan: Plan, recipe: Recipe
) -> Iterator[Sequence[keras.Model]]:
    """Yield models for the image size of a phase, and copy their weights to the members.

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
    more = {"seed": seed, "first_epoch": first_epoch, "cache": cache}
    make, arguments = recipe.batches((pk_batches, more))
    return make(plan.images, **arguments)
