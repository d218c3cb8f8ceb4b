"""`python train.py`: from a data set to a run folder with a trained, scored model.

Without flags it draws pedestrians and trains a small embedder on them. Every value of the recipe
is a flag; see `keras_reid.training.recipes`.
"""

import dataclasses
import sys
import time
from typing import Any

from absl import flags

from keras_reid.cli.shared import FLAGS, command, say
from keras_reid.training import recipes, runs

flags.DEFINE_string("recipe", None, "bot, or tiny (the default for the synthetic data set).")
flags.DEFINE_integer("seed", 0, "Seed of weights, sampling and augmentation.")
flags.DEFINE_string("cache", None, "Keep decoded images: 'memory', or a file; default: neither.")
flags.DEFINE_integer("eval_every", 0, "Score the model every so many epochs; 0: only at the end.")
flags.DEFINE_bool("check_only", False, "Report what is wrong with the data set, and stop.")
flags.DEFINE_bool("deterministic", False, "Bit-equal repetition; slower on a GPU.")
flags.DEFINE_string("precision", "float32", "float32, mixed_bfloat16 or mixed_float16.")

_DEFINE: dict[Any, Any] = {
    bool: flags.DEFINE_bool,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
}
_FIELDS = [field.name for field in dataclasses.fields(recipes.Recipe)]
for _field in dataclasses.fields(recipes.Recipe):
    _DEFINE[_field.type](_field.name, None, f"{_field.metadata['help']} Default: the recipe's.")


def main(argv: list[str]) -> None:
    """Reads the flags, trains, scores and says where everything is."""
    dataset_name = FLAGS.dataset or "synthetic"
    recipe_name = FLAGS.recipe or ("tiny" if dataset_name == "synthetic" else "bot")
    given: dict[str, Any] = {
        name: FLAGS[name].value for name in _FIELDS if FLAGS[name].value is not None
    }
    recipe = dataclasses.replace(recipes.get(recipe_name), **given)

    import keras

    from keras_reid import data
    from keras_reid.errors import InputError
    from keras_reid.training import fitting
    from keras_reid.training.callbacks import RetrievalEvaluation

    data_dir = FLAGS.data_dir or ("data/synthetic" if dataset_name == "synthetic" else None)
    if data_dir is None:
        raise InputError(f"the data set {dataset_name} is read from a folder: give --data_dir")
    dataset = data.load(dataset_name, data_dir)
    if FLAGS.check_only:
        say(str(data.check(dataset, recipe.instances)))
        return
    if dataset.train is None:
        raise InputError(
            f"{data_dir!r} has query and gallery images only and cannot be trained on; score a "
            "model on it with evaluate.py"
        )
    if FLAGS.precision not in ("float32", "mixed_bfloat16", "mixed_float16"):
        raise InputError(
            f"precision is float32, mixed_bfloat16 or mixed_float16: received {FLAGS.precision!r}"
        )
    settings = {
        "dataset": dataset_name,
        "data_dir": str(data_dir),
        "protocol": FLAGS.protocol,
        "recipe": recipe_name,
        "seed": FLAGS.seed,
        "precision": FLAGS.precision,
        **dataclasses.asdict(recipe),
    }
    run = runs.Run(FLAGS.run) if FLAGS.run else runs.default(dataset_name, recipe_name, settings)
    run.check(settings)
    train = data.readable(dataset.train)
    data.pk_steps(train, recipe.identities, recipe.instances)
    evaluation = None
    if dataset.query is not None and dataset.gallery is not None:
        evaluation = RetrievalEvaluation(
            data.readable(dataset.query),
            data.readable(dataset.gallery),
            FLAGS.batch_size,
            FLAGS.eval_every or recipe.epochs,
            recipe.flip,
            FLAGS.protocol,
            dataset_name,
        )

    keras.utils.set_random_seed(FLAGS.seed)
    keras.mixed_precision.set_global_policy(FLAGS.precision)
    model = fitting.build_model(recipe, len(train.classes()[0]))
    say(f"{dataset_name}: {train}")
    scores: dict[str, Any] = {}
    if evaluation:
        scores["before"] = evaluation.score(model).as_dict()
        say(f"before training: {_headline(scores['before'])}")
    say(f"run folder: {run.directory}")
    begin = time.perf_counter()
    fitting.fit(
        model,
        train,
        recipe,
        run,
        settings,
        seed=FLAGS.seed,
        cache=FLAGS.cache,
        evaluation=evaluation if FLAGS.eval_every else None,
        verbose=1 if sys.stdout.isatty() else 2,
    )
    minutes = (time.perf_counter() - begin) / 60
    if evaluation:
        result = evaluation.score(model)
        scores["after"] = result.as_dict()
        say(f"\n{result}\n")
        say(f"before training: {_headline(scores['before'])}")
        say(f"after training:  {_headline(scores['after'])}")
    run.finish({**scores, "minutes": minutes})
    say(f"trained for {minutes:.1f} minutes; in {run.directory}:")
    for path, what in run.contents().items():
        say(f"  {path:<16} {what}")
    say(f"next: python export.py --run={run.directory}")


def _headline(score: dict[str, Any]) -> str:
    return f"mAP {100 * score['mAP']:.1f} %, rank-1 {100 * score['cmc'][0]:.1f} %"


run = command(main)
