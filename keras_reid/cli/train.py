"""`keras-reid train`: from a data set to a run folder with a trained, scored model.

Without flags it generates images of synthetic pedestrians and trains a small embedder on them.
Every value of the recipe is a flag; see `keras_reid.training.recipe`.
"""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_reid import data, models, training, visualize
from keras_reid.cli.options import Command
from keras_reid.cli.sources import check_training, scored_after
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import progress, say
from keras_reid.cli.train_options import (
    TrainOptions,
    check_flags,
    dataset_of,
    recipe_flags,
    settings_of,
    sources_of,
    teacher_of,
    with_defaults,
)
from keras_reid.cli.train_scores import Scores
from keras_reid.errors import InputError, counted
from keras_reid.training import recipes, runs, trackers
from keras_reid.training.recipe import Recipe

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Job:
    """Training run with checked flags.

    Attributes:
        options: flags, with the defaults of data set and recipe.
        recipe: recipe with the values of the flags.
        dataset: images before decoding.
        tests: data sets that are scored after training, by name.
        table: attributes of the identities; None if the recipe uses none.
        run: run folder.
        settings: values of `flags.json`.
    """

    options: TrainOptions
    recipe: Recipe
    dataset: data.ReidDataset
    tests: dict[str, data.ReidDataset]
    table: data.AttributeTable | None
    run: runs.Run
    settings: dict[str, Any]


def train(options: TrainOptions) -> "runs.Run | data.CheckReport":
    """Train a model, score it, print the location of each file and return the run.

    Returns:
        The run: the folder of the model and its scores. With `check_only`, the report on the data
        set.

    Raises:
        InputError: options that exclude each other, a data set without training images, or, with
            `check_only`, an invalid one.
    """
    options = with_defaults(options)
    recipe = recipes.get(str(options.recipe)).replace(**options.settings)
    sources = sources_of(options)
    dataset = dataset_of(options, sources)
    tests = scored_after(sources, options.test_tables or ())
    check_training(dataset, tests, recipe.unlabeled)
    if options.check_only:
        return _report(dataset, recipe)
    for method in recipe.methods:
        dataset = method.dataset(dataset)
        tests = {name: method.dataset(test) for name, test in tests.items()}
    if dataset.train is None:
        raise InputError(
            f"{options.data_dir} has no training images. Score a model on it with "
            "keras-reid evaluate."
        )
    check_flags(options, recipe)
    table = data.read_attributes(options.attributes) if options.attributes else None
    settings = settings_of(options, recipe, dataset.train, table)
    if options.run:
        run = runs.Run(options.run)
    else:
        name = "-".join(settings.get("sources", [str(options.dataset)]))
        run = runs.default(name, str(options.recipe), settings)
    try:
        run.check(settings, options.overwrite)
        _train(Job(options, recipe, dataset, tests, table, run, settings))
    finally:
        run.release()
    return run


def _report(dataset: data.ReidDataset, recipe: Recipe) -> "data.CheckReport":
    """Print and return the validation of a data set; raise if it is invalid."""
    import_keras()
    report = data.check(dataset, recipe.num_instances)
    say(str(report))
    if not report.ok:
        raise InputError(
            f"{dataset.name} has the faults above. Correct them, or train without --check_only."
        )
    return report


def _train(job: Job) -> None:
    """Train and score the models of a job, and write them to its run folder."""
    keras = import_keras()
    import tensorflow as tf

    options, recipe = job.options, job.recipe
    batch = recipe.num_identities_per_batch * recipe.num_instances
    replicas = training.Replicas(options.strategy, batch)  # before the first operation
    if replicas.is_chief:
        job.run.claim()
    dataset = _annotated(options, job.dataset)
    images, schema = dataset.train, None
    assert images is not None
    if job.table is not None:
        images, schema = job.table.label(images), job.table.schema
    plan = training.Plan.of(recipe, images, schema, replicas, teacher_of(options, recipe))
    scores = None
    if replicas.is_chief:
        tests = {name: _annotated(options, test) for name, test in job.tests.items()}
        scores = Scores.of(options, recipe, dataset, tests)

    keras.utils.set_random_seed(options.seed)
    keras.mixed_precision.set_global_policy(options.precision)
    with replicas.strategy.scope():
        teacher = recipe.load_teacher(plan.num_identities)
    members = _members(plan)
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    count = f"{counted(len(images), 'image')} of {counted(plan.num_identities, 'identity')}"
    if unlabeled := images.unlabeled.sum():
        count += f", {unlabeled:,} of them without identity"
    if images.has_tracklets:
        count += f" in {counted(len(images.tracklet_rows), 'tracklet')}"
    say(f"data set:        {dataset.name}, {count}")
    for source in job.settings.get("sources", []):
        own = images[images.columns[data.SOURCE] == source]
        persons = counted(len({*own.identity[~own.unlabeled].tolist()}), "identity")
        say(f"  {source}: {counted(len(own), 'image')} of {persons}")
    _fit(job, plan, members, teacher, scores)


def _fit(
    job: Job,
    plan: "training.Plan",
    members: "list[keras.Model]",
    teacher: "keras.Model | None",
    scores: Scores | None,
) -> None:
    """Train the members, then score them and finish the run."""
    from keras_reid.training import fitting

    options, run = job.options, job.run
    if options.overwrite and plan.replicas.is_chief:
        run.clear(job.settings)  # after all models are loaded, which may be those of the run
    before = scores.before(members[0]) if scores and options.score_before else {}
    say(f"run folder:      {run.directory}")
    evaluation = scores.evaluation if scores else None
    boards = []
    if isinstance(evaluation, training.RetrievalEvaluation):
        boards = [visualize.Board(evaluation, run.logs, options.log_images)]
    callbacks = [evaluation] if evaluation and options.eval_every else []
    tracker = options.tracker if plan.replicas.is_chief else "none"
    with trackers.tracked(tracker, run, job.settings) as (loggers, log_scores):
        fitting.fit(
            members,
            plan,
            run,
            job.settings,
            teacher=teacher,
            seed=options.seed,
            cache=options.cache,
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[*callbacks, *boards, *loggers],
            data_service=options.data_service,
            progress=progress("making views"),
        )
        if scores is None:
            say(f"trained; worker 0 writes and scores the model in {run.directory}")
            return
        values, final = scores.after(members)
        run.finish({**before, **values, "minutes": run.minutes})
        for board in boards:
            board.finish(job.settings, final, sum(phase.epochs for phase, _ in plan.recipe.phases))
        log_scores(final)
    _say_contents(run, members)


def _say_contents(run: runs.Run, members: "list[keras.Model]") -> None:
    """Print the files of the run and a command that uses the model."""
    of_member = [f" of member {n}" for n in range(1, len(members) + 1)] if members[1:] else [""]
    files = {
        run.flags_file.name: "flags",
        **{run.member_file(n).name: f"Keras model{o}" for n, o in enumerate(of_member, 1)},
        run.metrics_file.name: "scores with their protocol",
        run.history_file.name: "losses by epoch",
        f"{run.logs.name}/": "losses for tensorboard --logdir",
    }
    say(f"training time:   {run.metrics['minutes']:.1f} min")
    say(f"files in {run.directory}:")
    for path, description in files.items():
        say(f"  {path:<15} {description}")
    pairs = models.is_pair_verifier(members[0])
    command = "search verify FIRST.jpg SECOND.jpg" if pairs else "export"
    say(f"next: keras-reid {command} --model={run.directory}")


def _members(plan: "training.Plan") -> "list[keras.Model]":
    """Return the models in their initial state."""
    from keras_reid.training import build

    members, start = plan.members(), plan.recipe.init_from
    if start:
        left = {layer for member in members for layer in build.start_from(member, start)}
        say(f"initial weights: {start}" + (f", except {', '.join(sorted(left))}" if left else ""))
    return members


def _annotated(options: TrainOptions, dataset: data.ReidDataset) -> data.ReidDataset:
    """Return the readable images, with body points if there is a source of them."""

    def annotated(images: data.PersonImages) -> data.PersonImages:
        images = data.readable(images, progress=progress("reading images"))
        return options.with_keypoints(images, options.keypoints, options.data_dir)

    return dataset.map(annotated)


run = Command(
    train,
    TrainOptions,
    "recipe dataset data_dir backbone epochs height width run eval_every check_only",
    settings=recipe_flags(),
)
