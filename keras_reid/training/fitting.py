"""Loop over the phases of a training run, with backups."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from keras_reid import models
from keras_reid.data import from_service, pk_batches
from keras_reid.data.pipeline import check_service
from keras_reid.training.backup import Backup
from keras_reid.training.build import Plan, build_learner, groups_of
from keras_reid.training.callbacks import CollapseMonitor, FiniteLoss, History
from keras_reid.training.edges import members_of
from keras_reid.training.recipe import Recipe
from keras_reid.training.runs import Run
from keras_reid.training.views import Views, rounds, view_batches, with_class_labels

Callbacks = Sequence[keras.callbacks.Callback]
Streams = Iterable[tuple[range, Any]]  # epochs and their batches


# The last arguments are options, as those of `keras.Model.fit`.
def fit(
    model: keras.Model | Sequence[keras.Model],
    plan: Plan,
    run: Run,
    flags: dict[str, Any],
    *,
    teacher: keras.Model | None = None,
    seed: int = 0,
    cache: str | None = None,
    verbose: int = 1,
    callbacks: Callbacks = (),
    data_service: str | None = None,
    progress: Callable[[int, int], None] | None = None,
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
        verbose: see `keras.Model.fit`.
        callbacks: callbacks of Keras. The history contains their entries in the logs, such as the
            scores of a `RetrievalEvaluation`.
        data_service: see `keras_reid.data.from_service`.
        progress: called with the numbers of existing views and of all, while views are made.

    Returns:
        The model, or models, with the moving average of the weights if the recipe keeps one.

    Raises:
        InputError: the run is finished or has other flags, or images are unreadable.
    """
    members = [model] if isinstance(model, keras.Model) else list(model)
    if data_service:
        check_service(plan.images, cache)

    end = 0
    for number, (recipe, phase) in enumerate(plan.recipe.phases, start=1):
        begin, end = end, end + recipe.epochs
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
                epochs, round_epochs = range(first, end), recipe.distillation.round_epochs
                if plan.teacher is None:
                    batches = _batches(plan, recipe, seed, first, cache, data_service)
                    streams: Streams = [(epochs, batches)]
                else:
                    streams = _view_streams(plan, recipe, run, seed, epochs, progress)
                if plan.replicas.is_chief:
                    run.start(flags)
                for part, stream in streams:
                    # `fit` ends a round of views with the averages, but its backup does not.
                    if plan.teacher and part.start and not part.start % round_epochs:
                        _average(learner)
                    saving = None
                    if plan.replicas.is_chief:
                        saving = [*callbacks, *_logs(run, part.start), backup]
                    _run_phase(learner, stream, part, plan, saving, verbose)
            # A later phase begins with the averages of this one, and so does a resumed one.
            _average(learner)
    if plan.replicas.is_chief:
        run.save_models(members)
    return model


def _average(learner: keras.Model) -> None:
    """Set the weights to their moving averages, if the optimizers keep them."""
    for member in members_of(learner).values():
        member.optimizer.finalize_variable_values(member.trainable_variables)


def _logs(run: Run, first_epoch: int) -> Callbacks:
    """Return the callbacks that log the losses."""
    board = keras.callbacks.TensorBoard(run.logs, write_graph=False)
    return [History(run.history_file, first_epoch), board]


def _run_phase(
    learner: keras.Model,
    stream: Any,
    epochs: range,
    plan: Plan,
    saving: Callbacks | None,
    verbose: int,
) -> None:
    """Train for the epochs of a phase.

    Args:
        learner: compiled model.
        stream: batches of all replicas.
        epochs: epochs of the phase.
        plan: the plan.
        saving: callbacks that write the run; None for a worker that does not write.
        verbose: see `keras.Model.fit`.
    """
    recipe = plan.recipe
    sizes = recipe.num_identities_per_batch, recipe.num_instances
    with TemporaryDirectory() as scratch:
        if saving is None:
            # All workers read the saved variables, because they sum the metrics together.
            saving = [Backup(Path(scratch) / "backup.weights.h5", plan.steps)]
        learner.fit(
            plan.replicas.shared(stream, math.prod(sizes)),
            epochs=epochs.stop,
            initial_epoch=epochs.start,
            steps_per_epoch=plan.steps,
            shuffle=False,
            verbose=verbose,
            callbacks=[FiniteLoss(), CollapseMonitor(*sizes), *saving],
        )


@contextmanager
def sized(
    members: Sequence[keras.Model], plan: Plan, recipe: Recipe
) -> Iterator[Sequence[keras.Model]]:
    """Yield models for the image size of a phase, and copy their weights to the members.

    The models are the members, or copies if the phase has another image size.

    Args:
        members: models of the plan.
        plan: the plan.
        recipe: recipe of the phase.
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


def _batches(
    plan: Plan,
    recipe: Recipe,
    seed: int,
    first_epoch: int,
    cache: str | None = None,
    service: str | None = None,
) -> Any:
    """Return the batches of a phase, from an epoch on."""
    more: dict[str, Any] = {"seed": seed, "first_epoch": first_epoch, "cache": cache}
    more["num_identities_per_batch"], more["num_instances"] = groups_of(recipe)
    make, arguments = recipe.batches((pk_batches, more))
    batches = make(plan.images, **arguments)
    if plan.annotations.teacher and recipe.labeled:
        batches = batches.map(with_class_labels)
    return from_service(batches, service) if service else batches


def _view_streams(
    plan: Plan,
    recipe: Recipe,
    run: Run,
    seed: int,
    epochs: range,
    progress: Callable[[int, int], None] | None,
) -> Streams:
    """Yield the epochs of each round and their batches of views.

    Views in the run folder are removed after their round.
    """
    assert plan.teacher is not None
    settings = recipe.distillation
    folder = settings.views_dir or run.directory / "views"
    count = settings.views_per_round
    views = Views(folder, plan.teacher, plan.images, recipe.image_size, count, seed)
    index = views.images.classes()[1]
    for number, part in rounds(epochs, settings.round_epochs):
        stored = views.round(number, progress)
        stream = view_batches(stored, index, groups_of(recipe), plan.steps, seed, part.start)
        yield part, stream.map(with_class_labels) if recipe.labeled else stream
        if not settings.views_dir:
            views.remove(number)
