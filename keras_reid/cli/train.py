"""`python train.py`: from a data set to a run folder with a trained, scored model.

Without flags it draws pedestrians and trains a small embedder on them. Every value of the recipe
is a flag; see `keras_reid.training.recipes`.
"""

import sys
from typing import Any

import keras
import tensorflow as tf
from absl import flags

from keras_reid import data, models
from keras_reid.cli.shared import FLAGS, command, say, with_keypoints
from keras_reid.errors import InputError
from keras_reid.evaluation import RankingResult
from keras_reid.training import RetrievalEvaluation, fitting, recipes, runs
from keras_reid.training.methods import Annotations

flags.DEFINE_string(
    "recipe",
    None,
    f"{', '.join(recipes.RECIPES)}; default: bot, for synthetic pedestrians tiny.",
)
flags.DEFINE_integer("seed", 0, "Seed of weights, sampling and augmentation.")
flags.DEFINE_string("attributes", None, "Table or .mat file of attributes, for their recipe.")
flags.DEFINE_string("cache", None, "Keep decoded images: 'memory', or a folder; default: neither.")
flags.DEFINE_integer("eval_every", 0, "Score the model every so many epochs; 0: only at the end.")
flags.DEFINE_bool("check_only", False, "Report what is wrong with the data set, and stop.")
flags.DEFINE_bool("deterministic", True, "Bit-equal repetition; can be slower on a GPU.")
flags.DEFINE_enum(
    "precision", "float32", ["float32", "mixed_bfloat16", "mixed_float16"], "Keras dtype policy."
)

_DEFINE: dict[Any, Any] = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
    bool | None: flags.DEFINE_bool,
    float | None: flags.DEFINE_float,
    str | None: flags.DEFINE_string,
}
for _field in recipes.setting_fields():
    _DEFINE[_field.type](_field.name, None, f"{_field.metadata['help']} Default: the recipe's.")


def main(argv: list[str]) -> None:
    """Reads the flags, trains, scores and says where everything is."""
    name = FLAGS.dataset or "synthetic"
    recipe_name, recipe = _recipe(name)
    data_dir, dataset = _dataset(name, recipe)
    if FLAGS.check_only:
        if isinstance(dataset, data.TrackletDataset):
            raise InputError("--check_only checks images: give it without a recipe for tracklets")
        say(str(data.check(dataset, recipe.instances)))
        return
    table = _attributes(recipe)
    settings = {
        "dataset": name,
        "data_dir": data_dir,
        "protocol": FLAGS.protocol,
        "recipe": recipe_name,
        "seed": FLAGS.seed,
        "precision": FLAGS.precision,
        "keypoints": FLAGS.keypoints if "keypoints" in recipe.columns else None,
        "attribute_names": None if table is None else list(table.schema.names),
        **recipe.settings,
    }
    run = runs.Run(FLAGS.run) if FLAGS.run else runs.default(name, recipe_name, settings)
    run.check(settings)
    train = _annotated(_trainable(dataset, data_dir), recipe)
    if table is not None:
        train = table.label(train)
    schema = None if table is None else table.schema
    data.pk_steps(train, recipe.identities, recipe.instances)
    evaluation = _evaluation(dataset, recipe)

    keras.utils.set_random_seed(FLAGS.seed)
    if FLAGS.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.mixed_precision.set_global_policy(FLAGS.precision)
    count = len(train.classes()[0])
    teacher = recipe.distillation.load_teacher(recipe, count)
    annotations = Annotations.of(train, schema)
    members = _members(recipe, count, annotations)
    say(f"{name}: {train}")
    scores: dict[str, Any] = {}
    if evaluation:
        scores["before"] = evaluation.score(members[0]).to_dict()
        say(f"before training: {_headline(scores['before'])}")
    say(f"run folder: {run.directory}")
    fitting.fit(
        members,
        train,
        recipe,
        run,
        settings,
        schema=schema,
        teacher=teacher,
        seed=FLAGS.seed,
        cache=FLAGS.cache,
        evaluation=evaluation if FLAGS.eval_every else None,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    scores["minutes"] = run.minutes
    if evaluation:
        results = _scored(evaluation, members)
        scores["after"] = results["1"].to_dict()
        say(f"\n{results['1']}\n")
        if len(members) > 1:
            scores["members"] = {name: result.to_dict() for name, result in results.items()}
            for name, score in scores["members"].items():
                say(f"--member={name}: {_headline(score)}")
        say(f"before training: {_headline(scores['before'])}")
        say(f"after training:  {_headline(scores['after'])}")
    run.finish(scores)
    say(f"trained for {scores['minutes']:.1f} minutes; in {run.directory}:")
    for path, what in run.contents().items():
        say(f"  {path:<16} {what}")
    say(f"next: python export.py --run={run.directory}")


def _recipe(dataset: str) -> tuple[str, recipes.Recipe]:
    """The recipe by its flag, or the data set's default, with every value that a flag gives."""
    name = FLAGS.recipe or ("tiny" if dataset == "synthetic" else "bot")
    names = [field.name for field in recipes.setting_fields()]
    given = {field: FLAGS[field].value for field in names if FLAGS[field].value is not None}
    return name, recipes.get(name).replace(**given)


def _members(recipe: recipes.Recipe, count: int, annotations: Annotations) -> list[keras.Model]:
    """The models in their initial state."""
    members = fitting.build_members(recipe, count, annotations)
    if recipe.start:
        left = {layer for member in members for layer in fitting.start_from(member, recipe.start)}
        say(f"starts from {recipe.start}; new are {', '.join(sorted(left)) or 'no layers'}")
    return members


def _dataset(
    name: str, recipe: recipes.Recipe
) -> tuple[str, data.ReidDataset | data.TrackletDataset]:
    """The data set, of images or of tracklets, and the folder that it was read from."""
    data_dir = FLAGS.data_dir or ("data/synthetic" if name == "synthetic" else None)
    if data_dir is None:
        raise InputError(f"the data set {name} is read from a folder: give --data_dir")
    FLAGS["data_dir"].value = data_dir
    return data_dir, (data.load_tracklets if "tracklet" in recipe.columns else data.load)(
        name, data_dir
    )


def _attributes(recipe: recipes.Recipe) -> data.AttributeTable | None:
    wanted = "attributes" in recipe.columns
    if wanted != bool(FLAGS.attributes):
        raise InputError(
            "attributes are learned by a recipe from a table: give --attributes=FILE.csv together "
            "with --recipe=attributes (or --attribute_weight), or neither"
        )
    return data.read_attributes(FLAGS.attributes) if wanted else None


def _annotated(images: Any, recipe: recipes.Recipe) -> Any:
    """What of them can be read, with body points if the recipe needs them."""
    if isinstance(images, data.Tracklets):
        return data.readable_tracklets(images)
    wanted = "keypoints" in recipe.columns
    if wanted != bool(FLAGS.keypoints):
        raise InputError(
            "pose needs body points, and nothing else does: give --keypoints=FILE.csv or "
            "--keypoints=movenet:FILE.tflite together with --recipe=pose (or --pose), or neither"
        )
    return with_keypoints(data.readable(images), FLAGS.keypoints if wanted else None)


def _trainable(dataset: data.ReidDataset | data.TrackletDataset, data_dir: str) -> Any:
    if dataset.train is None:
        raise InputError(
            f"{data_dir!r} has query and gallery images only and cannot be trained on; score a "
            "model on it with evaluate.py"
        )
    return dataset.train


def _evaluation(
    dataset: data.ReidDataset | data.TrackletDataset, recipe: recipes.Recipe
) -> RetrievalEvaluation | None:
    """How the model is scored; None for a data set without query and gallery."""
    if dataset.query is None or dataset.gallery is None:
        say("no query and gallery images: the model is trained, not scored")
        return None
    return RetrievalEvaluation(
        _annotated(dataset.query, recipe),
        _annotated(dataset.gallery, recipe),
        FLAGS.embed_batch_size,
        FLAGS.eval_every or recipe.epochs,
        recipe.flip,
        _protocol(recipe),
        dataset.name,
        recipe.tracklets.frames,
    )


def _protocol(recipe: recipes.Recipe) -> str:
    """That of the flag; of tracklets MARS's unless it is said."""
    clips = "tracklet" in recipe.columns
    return "mars" if clips and not FLAGS["protocol"].present else FLAGS.protocol


def _scored(
    evaluation: RetrievalEvaluation, members: list[keras.Model]
) -> dict[str, RankingResult]:
    """The results of each member and of all together, by the words of the flag --member."""
    named = {str(number): model for number, model in enumerate(members, start=1)}
    if len(members) > 1:
        named["ensemble"] = models.ensemble(members)
    return {name: evaluation.score(model) for name, model in named.items()}


def _headline(score: dict[str, Any]) -> str:
    return f"mAP {100 * score['mAP']:.1f} %, rank-1 {100 * score['cmc'][0]:.1f} %"


run = command(
    main,
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
)
