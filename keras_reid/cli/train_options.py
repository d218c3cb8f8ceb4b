"""Flags of `train.py`, with their defaults, and the data set and recipe that they name."""

from dataclasses import dataclass, field, replace
from typing import Any

from keras_reid import checks, data
from keras_reid.cli.common import DataOptions
from keras_reid.cli.options import option
from keras_reid.errors import InputError
from keras_reid.training import recipes, runs, trackers
from keras_reid.training.recipe import Recipe
from keras_reid.training.registry import STRATEGIES


@dataclass(frozen=True, kw_only=True)
class TrainOptions(DataOptions):
    """Data, recipe and run folder of a training.

    Attributes:
        settings: values of the recipe, by name, instead of its own.
    """

    run: str | None = option("New run folder; default: runs/DATASET-RECIPE-N.")
    recipe: str | None = option(
        f"{', '.join(recipes.RECIPES)}; default: bot, for synthetic pedestrians tiny."
    )
    base_run: str | None = option(
        "Run folder with the defaults for the data set and the values of the recipe."
    )
    seed: int = option("Seed of weights, sampling and augmentation.", 0, least=0, most=2**32 - 1)
    attributes: str | None = option("Table or .mat file of attributes, for their recipe.")
    combine_all: bool = option(
        "Train on the query and gallery images too, without distractors. The model is not scored.",
        False,
    )
    holdout: float = option(
        "Fraction of the identities in the hold-out set that scores the model, for data without "
        "query and gallery; 0: none.",
        0.0,
        least=0,
        most=0.9,
    )
    cache: str | None = option("Keep decoded images: 'memory', or a folder; default: neither.")
    eval_every: int = option(
        "Number of epochs between scores of the model; 0: only at the end.", 0, least=0
    )
    score_before: bool = option("Score the model before it is trained, too.", True)
    tracker: str = option(
        "Log settings, losses by epoch and scores to an experiment tracker. Its destination is set "
        "by MLFLOW_TRACKING_URI, or by WANDB_MODE and WANDB_DIR.",
        "none",
        choices=tuple(trackers.TRACKERS),
    )
    log_images: bool = option(
        "Show ranked lists, and pictures of the embeddings, in TensorBoard: images of people in "
        "the run folder.",
        False,
    )
    check_only: bool = option("Validate the data set and stop.", False)
    strategy: str = option(
        "Replicas that train together, see tf.distribute: none; mirrored: the GPUs of this "
        "machine; multiworker: processes with this command, listed in TF_CONFIG.",
        "none",
        choices=STRATEGIES,
    )
    data_service: str | None = option(
        "grpc://HOST:PORT of a tf.data service that decodes and augments; see "
        "examples/data_service.py."
    )
    deterministic: bool = option("Bit-equal repetition; can be slower on a GPU.", True)
    precision: str = option(
        "Keras dtype policy.",
        "float32",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    settings: dict[str, Any] = field(default_factory=dict)


def with_defaults(options: TrainOptions) -> TrainOptions:
    """Return the options with data set and recipe: of the base run, else synthetic pedestrians."""
    if options.base_run is not None:
        options = with_base_run(options, runs.Run(options.base_run))
    name = options.dataset or "synthetic"
    small, folder = ("tiny", "data/synthetic") if name == "synthetic" else ("bot", None)
    recipe, data_dir = options.recipe or small, options.data_dir or folder
    return replace(options, dataset=name, recipe=recipe, data_dir=data_dir)


def with_base_run(options: TrainOptions, run: runs.Run) -> TrainOptions:
    """Return the options with the data set and the recipe of a run as defaults."""
    if options.recipe is not None:
        raise InputError("--base_run sets the recipe. Leave --recipe out.")
    flags = run.settings
    recipe = str(flags.get("recipe"))
    names = recipes.get(recipe).settings
    values = {name: value for name, value in flags.items() if name in names}
    of_data: dict[str, Any] = {}
    if options.dataset is None:
        for name in ("dataset", "data_dir", "protocol", "keypoints"):
            of_data[name] = getattr(options, name) or flags.get(name)
        holdout = 0.0 if options.combine_all else flags.get("holdout", 0.0)
        of_data["holdout"] = options.holdout or holdout
    return replace(options, recipe=recipe, settings=values | options.settings, **of_data)


def dataset_of(options: TrainOptions) -> data.ReidDataset:
    """Return the data set with the parts that the flags ask for."""
    dataset = options.dataset_of(options.dataset, options.data_dir, "a model is trained on images")
    if options.combine_all and options.holdout:
        raise InputError("--combine_all and --holdout exclude each other. Give one of them.")
    if options.combine_all:
        return dataset.all_to_train()
    return dataset.hold_out(options.holdout) if options.holdout else dataset


def check_flags(options: TrainOptions) -> None:
    """Raise for a missing tracker, and for flags that exclude each other."""
    trackers.check(options.tracker)
    if options.data_service is not None:
        checks.address(data_service=options.data_service)
    if options.strategy == "multiworker" and options.data_service:
        raise InputError(
            "--data_service serves one process, because its order of batches can differ between "
            "workers. Leave --data_service or --strategy=multiworker out."
        )
    if options.strategy == "multiworker" and not options.run:
        raise InputError("--run is required with several workers, which share the folder.")


def settings_of(
    options: TrainOptions,
    recipe: Recipe,
    images: data.PersonImages,
    table: data.AttributeTable | None,
) -> dict[str, Any]:
    """Return the values of `flags.json`."""
    names = ("dataset", "data_dir", "combine_all", "holdout", "recipe", "seed", "precision")
    return {
        **{name: getattr(options, name) for name in names},
        "protocol": options.protocol_of(images),
        "keypoints": options.keypoints if "keypoints" in recipe.columns else None,
        "attribute_names": None if table is None else list(table.schema.names),
        **recipe.settings,
    }


def attributes_of(options: TrainOptions, recipe: Recipe) -> data.AttributeTable | None:
    """Return the table of attributes; None for a recipe without them."""
    if ("attributes" in recipe.columns) != bool(options.attributes):
        raise InputError(
            "--attributes=FILE.csv and --recipe=attributes (or --attribute_weight) require each "
            "other. Give both or neither."
        )
    return data.read_attributes(options.attributes) if options.attributes else None
