"""`python train.py`: from a data set to a run folder with a trained, scored model.

Without flags it draws pedestrians and trains a small embedder on them. Every value of the recipe
is a flag; see `keras_reid.training.recipes`.
"""

import copy
import dataclasses
import sys
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from keras_reid import checks, data, models, training, visualize
from keras_reid.cli.common import DataOptions
from keras_reid.cli.options import Command, option
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import progress, say
from keras_reid.errors import InputError
from keras_reid.training import recipes, runs, trackers
from keras_reid.training.registry import STRATEGIES

if TYPE_CHECKING:
    import keras

    from keras_reid.training import RetrievalEvaluation


@dataclass(frozen=True, kw_only=True)
class TrainOptions(DataOptions):
    """What is trained on what.

    Attributes:
        settings: values of the recipe, by name, instead of its own.
    """

    run: str | None = option("New run folder; default: runs/DATASET-RECIPE-N.")
    recipe: str | None = option(
        f"{', '.join(recipes.RECIPES)}; default: bot, for synthetic pedestrians tiny."
    )
    base_run: str | None = option(
        "Run folder whose data set and values of the recipe are taken where nothing else is said."
    )
    seed: int = option("Seed of weights, sampling and augmentation.", 0, least=0, most=2**32 - 1)
    attributes: str | None = option("Table or .mat file of attributes, for their recipe.")
    combine_all: bool = option(
        "Train on the query and gallery images too, but distractors: for a model that is used "
        "elsewhere, for which nothing is left to score it.",
        False,
    )
    holdout: float = option(
        "Fraction of the identities that is kept aside to score the model, of data without query "
        "and gallery; 0: none.",
        0.0,
        least=0,
        most=0.9,
    )
    cache: str | None = option("Keep decoded images: 'memory', or a folder; default: neither.")
    eval_every: int = option(
        "Score the model every so many epochs; 0: only at the end.", 0, least=0
    )
    score_before: bool = option("Score the model before it is trained, too.", True)
    tracker: str = option(
        "Also tell an experiment tracker: settings, losses by epoch, scores. Where to is said by "
        "MLFLOW_TRACKING_URI, or by WANDB_MODE and WANDB_DIR.",
        "none",
        choices=tuple(trackers.TRACKERS),
    )
    log_images: bool = option(
        "Show ranked lists, and pictures beside embeddings, in TensorBoard: images of people in "
        "the run folder.",
        False,
    )
    check_only: bool = option("Report what is wrong with the data set, and stop.", False)
    strategy: str = option(
        "Replicas that train together, see tf.distribute: none; mirrored: the GPUs of this "
        "machine; multiworker: processes with this command, told of each other by TF_CONFIG.",
        "none",
        choices=STRATEGIES,
    )
    data_service: str | None = option(
        "grpc://HOST:PORT of a tf.data service, whose workers decode and augment; see "
        "examples/data_service.py."
    )
    deterministic: bool = option("Bit-equal repetition; can be slower on a GPU.", True)
    precision: str = option(
        "Keras dtype policy.",
        "float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    settings: dict[str, Any] = field(default_factory=dict)


def train(options: TrainOptions) -> "runs.Run | data.CheckReport":
    """Train a model, score it, print the location of each file and return the run.

    Returns:
        The run: the folder of the model and its scores. With `check_only`, the report on the data
        set.

    Raises:
        InputError: options that do not go together, a data set that cannot be trained on, or, with
            `check_only`, one with faults.
    """
    options = options if options.base_run is None else _like(options, runs.Run(options.base_run))
    name = options.dataset or "synthetic"
    recipe_name = options.recipe or ("tiny" if name == "synthetic" else "bot")
    recipe = recipes.get(recipe_name).replace(**options.settings)
    data_dir = options.data_dir or ("data/synthetic" if name == "synthetic" else None)
    dataset = options.dataset_of(name, data_dir, "a model is trained on images")
    if options.combine_all and options.holdout:
        raise InputError("--combine_all trains on what --holdout keeps aside: give one of them")
    if options.combine_all:
        dataset = dataset.all_to_train()
    if options.holdout:
        dataset = dataset.hold_out(options.holdout)
    if options.check_only:
        report = data.check(dataset, recipe.num_instances)
        say(str(report))
        if not report.ok:
            raise InputError(f"{data_dir!r} has the faults above: mend them, or train all the same")
        return report
    for method in recipe.methods:
        dataset = method.dataset(dataset)
    if dataset.train is None:
        raise InputError(
            f"{data_dir!r} has query and gallery images only and cannot be trained on; score a "
            "model on it with evaluate.py"
        )
    trackers.check(options.tracker)
    table = _attributes(options, recipe)
    settings = {
        "dataset": name,
        "data_dir": data_dir,
        "combine_all": options.combine_all,
        "holdout": options.holdout,
        "protocol": options.protocol_of(dataset.train),
        "recipe": recipe_name,
        "seed": options.seed,
        "precision": options.precision,
        "keypoints": options.keypoints if "keypoints" in recipe.columns else None,
        "attribute_names": None if table is None else list(table.schema.names),
        **recipe.settings,
    }
    if options.data_service is not None:
        checks.address(data_service=options.data_service)
    if options.strategy == "multiworker" and options.data_service:
        raise InputError(
            "a data service feeds one process, for its workers may order batches differently for "
            "each: leave --data_service or --strategy=multiworker out"
        )
    if options.strategy == "multiworker" and not options.run:
        raise InputError("all workers train in one run folder, which they share: give --run", "run")
    run = runs.Run(options.run) if options.run else runs.default(name, recipe_name, settings)
    try:
        run.check(settings)
        _trained(options, recipe, dataset, table, run, settings)
    finally:
        run.release()
    return run


def _like(options: TrainOptions, run: runs.Run) -> TrainOptions:
    """The options with what a run was trained on and by, where nothing else is said."""
    if options.recipe is not None:
        raise InputError("--base_run repeats the recipe of a run, too: leave --recipe out")
    said = run.settings
    recipe = str(said.get("recipe"))
    known = recipes.get(recipe).settings
    values = {name: value for name, value in said.items() if name in known}
    of_data: dict[str, Any] = {}
    if options.dataset is None:
        names = ("dataset", "data_dir", "protocol", "keypoints")
        of_data = {name: getattr(options, name) or said.get(name) for name in names}
        held = 0.0 if options.combine_all else said.get("holdout", 0.0)
        of_data["holdout"] = options.holdout or held
    return replace(options, recipe=recipe, settings=values | options.settings, **of_data)


def _trained(
    options: TrainOptions,
    recipe: recipes.Recipe,
    dataset: data.ReidDataset,
    table: data.AttributeTable | None,
    run: runs.Run,
    settings: dict[str, Any],
) -> None:
    """Builds, trains and scores what is kept in the run folder."""
    keras = import_keras()
    import tensorflow as tf

    from keras_reid.training import fitting

    # Before TensorFlow computes anything.
    replicas = training.Replicas(
        options.strategy, recipe.num_identities_per_batch * recipe.num_instances
    )
    if replicas.is_chief:
        run.claim()
    dataset = _annotated(options, dataset, recipe, settings["data_dir"])
    images = dataset.train
    assert images is not None
    if table is not None:
        images = table.label(images)
    plan = training.Plan.of(recipe, images, None if table is None else table.schema, replicas)
    evaluation = _evaluation(options, dataset, recipe) if replicas.is_chief else None

    keras.utils.set_random_seed(options.seed)
    keras.mixed_precision.set_global_policy(options.precision)
    with replicas.strategy.scope():
        teacher = recipe.load_teacher(plan.num_identities)
    members = _members(plan)
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    say(f"{dataset.name}: {images}")
    scores: dict[str, Any] = {}
    if evaluation and options.score_before:
        scores["before"] = evaluation.score(members[0]).to_dict()
        say(f"before training: {_headline(scores['before'])}")
    say(f"run folder: {run.directory}")
    board = visualize.Board(evaluation, run.logs, options.log_images) if evaluation else None
    tracker = options.tracker if replicas.is_chief else "none"
    with trackers.tracked(tracker, run, settings) as (callbacks, tell):
        fitting.fit(
            members,
            plan,
            run,
            settings,
            teacher=teacher,
            seed=options.seed,
            cache=options.cache,
            evaluation=evaluation if options.eval_every else None,
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[*([board] if board else []), *callbacks],
            data_service=options.data_service,
        )
        if not replicas.is_chief:
            say(f"trained; worker 0 writes and scores the model in {run.directory}")
            return
        scores["minutes"] = run.minutes
        final: dict[str, float] = {}
        if evaluation and board:
            scores |= _scored(evaluation, members)
            if "before" in scores:
                say(f"before training: {_headline(scores['before'])}")
            say(f"after training:  {_headline(scores['after'])}")
            final = {"mAP": scores["after"]["mAP"], "rank-1": scores["after"]["cmc"][0]}
            board.finish(settings, final, sum(phase.epochs for phase, _ in recipe.phases))
        run.finish(scores)
        tell(final)
    say(f"trained for {scores['minutes']:.1f} minutes; in {run.directory}:")
    for path, what in run.contents().items():
        say(f"  {path:<16} {what}")
    say(f"next: python export.py --model={run.directory}")


def _members(plan: "training.Plan") -> "list[keras.Model]":
    """Return the models in their initial state."""
    from keras_reid.training import build

    members, start = plan.members(), plan.recipe.init_from
    if start:
        left = {layer for member in members for layer in build.start_from(member, start)}
        say(f"starts from {start}; new are {', '.join(sorted(left)) or 'no layers'}")
    return members


def _attributes(options: TrainOptions, recipe: recipes.Recipe) -> data.AttributeTable | None:
    if ("attributes" in recipe.columns) != bool(options.attributes):
        raise InputError(
            "attributes are learned by a recipe from a table: give --attributes=FILE.csv together "
            "with --recipe=attributes (or --attribute_weight), or neither"
        )
    return data.read_attributes(options.attributes) if options.attributes else None


def _annotated(
    options: TrainOptions, dataset: data.ReidDataset, recipe: recipes.Recipe, data_dir: str | None
) -> data.ReidDataset:
    """What can be read, with body points if the recipe needs them."""
    wanted = "keypoints" in recipe.columns
    if wanted != bool(options.keypoints):
        raise InputError(
            "pose needs body points, and nothing else does: give --keypoints=FILE.csv or "
            "--keypoints=movenet:FILE.tflite together with --recipe=pose (or --pose), or neither"
        )
    source = options.keypoints if wanted else None
    return dataset.map(
        lambda images: options.with_keypoints(
            data.readable(images, progress=progress("reading images")), source, data_dir
        )
    )


def _evaluation(
    options: TrainOptions, dataset: data.ReidDataset, recipe: recipes.Recipe
) -> "RetrievalEvaluation | None":
    """How the model is scored; None for a data set without query and gallery."""
    if dataset.query is None or dataset.gallery is None:
        say(
            "no query and gallery images: the model is trained, not scored; --holdout=0.2 keeps a "
            "fifth of the identities aside to score it"
        )
        return None
    return training.RetrievalEvaluation(
        dataset.query,
        dataset.gallery,
        options.embed_batch_size,
        options.eval_every or recipe.epochs,
        recipe.flip,
        options.protocol_of(dataset.query),
        dataset.name,
        recipe.tracklets.frames,
    )


def _scored(evaluation: "RetrievalEvaluation", members: "list[keras.Model]") -> dict[str, Any]:
    """The scores of the first, and of each member and of all together by the words of --member."""
    named = {str(number): model for number, model in enumerate(members, start=1)}
    if len(members) > 1:
        named["ensemble"] = models.ensemble(members)
    # The first at last: its embeddings are those that are shown.
    results, calibrations = {}, {}
    for name, model in reversed(named.items()):
        results[name] = evaluation.score(model)
        if (calibration := evaluation.calibration()) is not None:
            calibrations[name] = calibration.to_dict()
    say(f"\n{results['1']}\n")
    values = {name: results[name].to_dict() for name in named}
    scores = {"after": values["1"], "calibration": calibrations}
    if len(members) == 1:
        return scores
    for name, score in values.items():
        say(f"--member={name}: {_headline(score)}")
    return {**scores, "members": values}


def _headline(score: dict[str, Any]) -> str:
    return f"mAP {100 * score['mAP']:.1f} %, rank-1 {100 * score['cmc'][0]:.1f} %"


def _with_default(setting: dataclasses.Field[Any]) -> dataclasses.Field[Any]:
    """The field, whose help says its value in each recipe: as a flag it has none of its own."""
    said = f"{setting.metadata['help']} Default: {recipes.defaults(setting.name)}."
    changed = copy.copy(setting)
    changed.metadata = MappingProxyType({**setting.metadata, "help": said, "default": None})
    return changed


run = Command(
    train,
    TrainOptions,
    "recipe",
    "dataset",
    "data_dir",
    "backbone",
    "epochs",
    "height",
    "width",
    "run",
    "eval_every",
    "check_only",
    settings=[_with_default(one) for one in recipes.setting_fields()],
)
