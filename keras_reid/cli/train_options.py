"""Flags of `train.py`, with their defaults, and the data set and recipe that they name."""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from keras_reid import checks, data, inference
from keras_reid.cli.common import DataOptions
from keras_reid.cli.network import NetworkOptions
from keras_reid.cli.options import option, reject
from keras_reid.cli.sources import Sources
from keras_reid.training import recipes, runs, trackers
from keras_reid.training.recipe import Recipe, setting_fields
from keras_reid.training.recipes import RECIPES
from keras_reid.training.registry import STRATEGIES
from keras_reid.training.teachers import check_teacher

# Headings of settings in the help; other settings are under "model".
TOPICS = {
    "data": "height width num_identities_per_batch num_instances camera_balanced source_sampling "
    "source_batches augment frames per_member_augmentation",
    "objective": "metric_loss metric_weight margin metric_distance normalize identity_weight "
    "label_smoothing softmax softmax_scale softmax_margin local_weight pose_weight frame_weight "
    "attribute_weight distillation members teacher teacher_embeddings views_per_round round_epochs "
    "views_dir temperature edges update average ramp_up",
    "schedule": "epochs learning_rate schedule warmup weight_decay head_lr_multiplier "
    "freeze_epochs ema_momentum small_epochs small_scale pretrain_epochs induction_epochs "
    "refinement_epochs",
    "evaluation": "flip",
}


@dataclass(frozen=True, kw_only=True)
class TrainOptions(NetworkOptions, DataOptions):
    """Options of `train`: the data set, the recipe, the run folder, and the teacher's network.

    Attributes:
        settings: values that replace those of the recipe, by name.
    """

    recipe: str | None = option(
        f"Named settings: {', '.join(RECIPES)}. Default: tiny for synthetic pedestrians, else bot.",
        topic="recipe",
    )
    base_run: str | None = option(
        "Run folder. Its data set, recipe and settings become the defaults.", topic="recipe"
    )
    dataset: str | None = option(
        "Format of the data set, or several separated by commas, such as market1501,csv. Formats: "
        f"{', '.join(data.READERS)}; docs/own-data.md describes their folders.",
        topic="data",
    )
    data_dir: str | None = option(
        "Folder of the data set, or the table of csv. For several data sets, a path of each, "
        "separated by commas; NAME=PATH sets another name than that of the file or folder.",
        topic="data",
    )
    leave_out: Sequence[str] | None = option(
        "Names of data sets that are not trained on, and scored after training. NAME/FOLDER leaves "
        "out the images in a folder of a data set.",
        topic="data",
    )
    test_tables: Sequence[str] | None = option(
        "Tables (like those of csv), or NAME=TABLE, that are scored after training.",
        topic="evaluation",
    )
    attributes: str | None = option(
        "Table or .mat file with the attributes of the identities, for --recipe=attributes.",
        topic="data",
    )
    holdout: float = option(
        "Fraction of the identities, from 0 to 0.9, that are left out of training and used to "
        "score the model. For data sets without query and gallery images.",
        0.0,
        least=0,
        most=0.9,
        topic="data",
    )
    combine_all: bool = option(
        "Query and gallery images, except distractors, as additional training images. The model "
        "is not scored.",
        False,
        topic="data",
    )
    cache: str | None = option(
        "Cache of decoded images: memory, or a folder. Default: no cache.", topic="data"
    )
    data_service: str | None = option(
        "Address grpc://HOST:PORT of a tf.data service that decodes and augments; see "
        "examples/data_service.py. Default: no service.",
        topic="data",
    )
    check_only: bool = option("Validation of the data set only, no training.", False, topic="data")
    eval_every: int = option(
        "Number of epochs between evaluations; 0: only one at the end.",
        0,
        least=0,
        topic="evaluation",
    )
    score_before: bool = option(
        "Scores of the model before its first epoch, too.", True, topic="evaluation"
    )
    seed: int = option("Seed of weights, sampling and augmentation.", 0, least=0, most=2**32 - 1)
    precision: str = option(
        "Keras dtype policy.",
        "float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    deterministic: bool = option(
        "Same results, bit for bit, if the command is repeated; can be slower on a GPU.", True
    )
    strategy: str = option(
        "Replicas that train together: the GPUs of this machine (mirrored), or processes of this "
        "command that TF_CONFIG lists (multiworker); see tf.distribute.",
        "none",
        choices=STRATEGIES,
    )
    run: str | None = option(
        "New run folder, or one to resume. Default: runs/DATASET-RECIPE-N.", topic="output"
    )
    tracker: str = option(
        "Experiment tracker for settings, losses by epoch and scores. MLFLOW_TRACKING_URI, or "
        "WANDB_MODE and WANDB_DIR, set its destination.",
        "none",
        choices=tuple(trackers.TRACKERS),
        topic="output",
    )
    log_images: bool = option(
        "Ranked lists and pictures of the embeddings in TensorBoard. The run folder then contains "
        "images of people.",
        False,
        topic="output",
    )
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (self.dataset or "synthetic").split(","):
            checks.one_of(data.READERS, dataset=name)


def with_defaults(options: TrainOptions) -> TrainOptions:
    """Return the options with the data set and recipe of the base run, or with the defaults.

    Args:
        options: options of the command.

    Raises:
        InputError: both a recipe and a base run are set.
    """
    if options.base_run is not None:
        options = with_base_run(options, runs.Run(options.base_run))
    name = options.dataset or "synthetic"
    small, folder = ("tiny", "data/synthetic") if name == "synthetic" else ("bot", None)
    recipe, data_dir = options.recipe or small, options.data_dir or folder
    return replace(options, dataset=name, recipe=recipe, data_dir=data_dir)


def with_base_run(options: TrainOptions, run: runs.Run) -> TrainOptions:
    """Return the options with the data set and the recipe of a run as defaults."""
    reject((options.recipe is not None, "--base_run sets the recipe. Omit --recipe."))
    flags = run.settings
    recipe = str(flags.get("recipe"))
    names = recipes.get(recipe).settings
    values = {name: value for name, value in flags.items() if name in names}
    of_data: dict[str, Any] = {}
    if options.dataset is None:
        for name in ("dataset", "data_dir", "protocol", "keypoints", "leave_out", "test_tables"):
            of_data[name] = getattr(options, name) or flags.get(name)
        holdout = 0.0 if options.combine_all else flags.get("holdout", 0.0)
        of_data["holdout"] = options.holdout or holdout
    return replace(options, recipe=recipe, settings=values | options.settings, **of_data)


def sources_of(options: TrainOptions) -> Sources:
    """Return the data sets of the flags.

    Raises:
        InputError: flags that exclude or require each other, or unreadable data sets.
    """
    both = options.combine_all and options.holdout
    reject(
        (
            options.data_dir is None,
            "a model is trained on images: --dataset and --data_dir are required.",
        ),
        (both, "--combine_all and --holdout exclude each other. Give one of them."),
    )
    return Sources.load(str(options.dataset), str(options.data_dir), options.leave_out or ())


def dataset_of(options: TrainOptions, sources: Sources) -> data.ReidDataset:
    """Return the data set with the parts of the flags --holdout and --combine_all.

    Args:
        options: options with a data set.
        sources: data sets of `sources_of`.

    Raises:
        InputError: a hold-out set of data sets with query and gallery images.
    """
    parts = sources.trained.values()
    if options.holdout and all(part.query is not None for part in parts):
        for part in parts:
            part.hold_out(options.holdout)  # raises
    dataset = sources.dataset(options.holdout)
    return dataset.all_to_train() if options.combine_all else dataset


def check_flags(options: TrainOptions, recipe: Recipe) -> None:
    """Raise for a missing tracker, and for flags that exclude or require each other."""
    trackers.check(options.tracker)
    for column, flag in (("keypoints", "--pose"), ("attributes", "--attribute_weight")):
        alone = (column in recipe.columns) != bool(getattr(options, column))
        text = f"--{column}=FILE and {flag} (or a recipe with it) require each other."
        reject((alone, f"{text} Set both or none."))
    movenet = "," in str(options.dataset) and str(options.keypoints).startswith("movenet:")
    cached = f"With several data sets, --keypoints={options.keypoints} requires --keypoints_cache."
    reject((movenet and not options.keypoints_cache, cached))
    if options.data_service is not None:
        checks.address(data_service=options.data_service)
    several = options.strategy == "multiworker"
    views = recipe.distillation.uses_views
    reject(
        (
            views and (options.cache or options.data_service or several),
            "--views_per_round excludes --cache, --data_service and --strategy=multiworker: the "
            "views are files. Omit them.",
        ),
        (
            several and options.data_service,
            "--data_service excludes --strategy=multiworker, because the order of the batches can "
            "differ between workers. Omit one of them.",
        ),
        (
            several and not options.run,
            "--run is required with several workers, which share the folder.",
        ),
    )


def teacher_of(options: TrainOptions, recipe: Recipe) -> inference.Embedder | None:
    """Return the embedder of the views, or None if the recipe makes no views.

    Raises:
        InputError: the teacher is missing, or does not embed single images; or flags of a network
            without a network.
    """
    if not recipe.distillation.uses_views or not recipe.distillation.teacher:
        given = [f"--{name}" for name, x in options.network.items() if x not in (None, "auto")]
        text = f"Flags of a network file ({', '.join(given)}) require --teacher and "
        reject((given, f"{text}--views_per_round. Omit them."))
        return None
    teacher = inference.load_embedder(recipe.distillation.teacher, **options.network)
    check_teacher(teacher)
    return teacher


def settings_of(
    options: TrainOptions,
    recipe: Recipe,
    images: data.PersonImages,
    table: data.AttributeTable | None,
) -> dict[str, Any]:
    """Return the values of `flags.json`."""
    names = ("dataset", "data_dir", "combine_all", "holdout", "recipe", "seed", "precision")
    lists = {name: getattr(options, name) for name in ("leave_out", "test_tables")}
    return {
        **{name: getattr(options, name) for name in names},
        **{name: list(values) for name, values in lists.items() if values},
        **({"sources": sources} if (sources := _names(images)) else {}),
        "protocol": options.protocol_of(images),
        "keypoints": options.keypoints if "keypoints" in recipe.columns else None,
        "attribute_names": None if table is None else list(table.schema.names),
        **({"network": options.network} if recipe.distillation.uses_views else {}),
        **recipe.settings,
    }


def _names(images: data.PersonImages) -> list[str]:
    """Return the names of the sources of a union; empty for one data set."""
    return sorted({*images.columns[data.SOURCE].tolist()} if data.SOURCE in images.columns else ())


def recipe_flags() -> list[dataclasses.Field[Any]]:
    """Return the settings of a recipe as flags without a default, with their values in the help."""
    return [_without_default(one) for one in setting_fields()]


def _without_default(setting: dataclasses.Field[Any]) -> dataclasses.Field[Any]:
    changed = copy.copy(setting)
    help_text = f"{setting.metadata['help']} Default: {default_text(setting.name)}."
    topics = [topic for topic, names in TOPICS.items() if setting.name in names.split()]
    own = {"help": help_text, "default": None, "topic": (topics or ["model"])[0]}
    changed.metadata = MappingProxyType({**setting.metadata, **own})
    return changed


def default_text(name: str) -> str:
    """Return the value of a setting in `bot`, and other values by recipe, as text."""
    values = {recipe: RECIPES[recipe].settings[name] for recipe in RECIPES}
    usual = values["bot"]
    others: dict[str, list[str]] = {}
    for recipe, value in values.items():
        if value != usual:
            others.setdefault(_word(value), []).append(recipe)
    texts = [f"{value} in {', '.join(names)}" for value, names in others.items()]
    return "; ".join([_word(usual), *texts])


def _word(value: Any) -> str:
    if value is None or value == "":
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
