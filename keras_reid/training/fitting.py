"""Loop over the phases of a training run, with backups."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from keras_reid import models
from keras_reid.data import from_service, pk_batches
from keras_reid.data.pipeline import check_service
from keras_reid.training.backup import Backup
from keras_reid.training.build import Plan, build_learner
from keras_reid.training.callbacks import CollapseMonitor, FiniteLoss, History
from keras_reid.training.edges import members_of
from keras_reid.training.recipe import Recipe
from keras_reid.training.runs import Run

Callbacks = Sequence[keras.callbacks.Callback]


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
                stream = _batches(plan, recipe, seed, first, cache, data_service)
                saving = None
                if plan.replicas.is_chief:
                    run.start(flags)
                    saving = [*callbacks, *_logs(run, first), backup]
                _run_phase(learner, stream, range(first, end), plan, saving, verbose)
            # A later phase begins with the averages of this one, and so does a resumed one.
            for member in members_of(learner).values():
                member.optimizer.finalize_variable_values(member.trainable_variables)
    if plan.replicas.is_chief:
        run.save_models(members)
    return model


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
    more = {"seed": seed, "first_epoch": first_epoch, "cache": cache}
    make, arguments = recipe.batches((pk_batches, more))
    batches = make(plan.images, **arguments)
    return from_service(batches, service) if service else batches
