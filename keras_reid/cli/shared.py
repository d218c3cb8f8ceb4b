"""What the commands have in common: the data set's flags, and how an error ends."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
from absl import app, flags, logging

from keras_reid import data, models, serving
from keras_reid.errors import InputError
from keras_reid.evaluation.protocols import RULES
from keras_reid.training.runs import Run

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "dataset",
    None,
    f"One of {', '.join(data.DATASETS)}; those from mars on are tracklets.",
)
flags.DEFINE_string("data_dir", None, "The folder, or for csv the file, that holds the data set.")
flags.DEFINE_string(
    "keypoints",
    None,
    "Body points of the images, for models with pose: FILE.csv, or movenet:FILE.tflite to estimate "
    "them. Default: those of the run.",
)
flags.DEFINE_string(
    "keypoints_cache",
    None,
    "Table in which estimated points are kept; default: keypoints-movenet.csv beside the data set.",
)
flags.DEFINE_string("run", None, "Run folder; train.py makes runs/DATASET-RECIPE-N by default.")
flags.DEFINE_string(
    "member",
    "1",
    "Of a run whose members learned from each other: a number, best (the highest mAP when it was "
    "trained), or ensemble (all embeddings side by side).",
)
flags.DEFINE_string(
    "protocol",
    "market1501",
    f"{', '.join(RULES)}: which gallery images are left out of a query's ranking. no-camera is for "
    "data without cameras.",
)
flags.DEFINE_integer(
    "embed_batch_size",
    128,
    "Images embedded at a time; a batch of a training is P x K, see --identities and --instances.",
    lower_bound=1,
)


def command(
    main: Callable[[list[str]], None], *shown: str, words: bool = False
) -> Callable[[], None]:
    """A console script of `main(argv)`: bad input ends in one sentence and exit code 1.

    Args:
        main: gets the program's name, and what is no flag if `words`.
        shown: the flags that people use, which --help shows; --helpfull shows all.
        words: whether there may be what is no flag.
    """

    def guarded(argv: list[str]) -> None:
        if argv[1:] and not words:
            print(f"error: flags begin with --: received {argv[1:]}", file=sys.stderr)
            sys.exit(2)
        try:
            if FLAGS.dataset is not None:
                data.check_dataset(FLAGS.dataset)
            main(argv)
        except InputError as error:
            known = error.argument is not None and error.argument in FLAGS
            flag = f" (--{error.argument})" if known else ""
            print(f"error: {error}{flag}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("\ninterrupted: the same command goes on where it was", file=sys.stderr)
            sys.exit(130)

    def run() -> None:
        _help_of(sys.modules[main.__module__], shown)
        logging.set_verbosity(logging.WARNING)
        app.run(guarded)

    return run


def _help_of(module: ModuleType, shown: tuple[str, ...]) -> None:
    """Lets --help show these flags: absl shows those of the script that was started."""
    sys.modules["__main__"].__doc__ = module.__doc__
    for name in shown:
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])


def say(text: str = "") -> None:
    """Prints at once, so that progress is seen through a pipe too."""
    print(text, flush=True)


def progress(what: str) -> Callable[[int, int], None]:
    """Says on stderr each time another tenth is done."""
    said = 0

    def report(done: int, total: int) -> None:
        nonlocal said
        tenth = 10 * done // total
        if tenth < said:  # another stage begins
            said = 0
        if tenth > said:
            said = tenth
            print(f"{what}: {done:,} of {total:,}", file=sys.stderr, flush=True)

    return report


def numbers_by_name(flag: str) -> dict[str, float]:
    """`["k1=20", "alpha=3.0"]`, the value of a flag, as numbers by name."""
    options = {}
    for text in FLAGS[flag].value or []:
        name, _, number = text.partition("=")
        try:
            options[name] = int(number) if number.lstrip("-").isdigit() else float(number)
        except ValueError:
            raise InputError(
                f"--{flag} are NAME=NUMBER, separated by commas: received {text!r}"
            ) from None
    return options


def refuse_existing(*names: str) -> None:
    """Outputs are new: nothing that exists is written over."""
    for name in names:
        value = FLAGS[name].value
        if value and Path(value).exists():
            raise InputError(f"--{name} is new: {value!r} exists")


def with_keypoints(images: data.PersonImages, source: str | None) -> data.PersonImages:
    """The images with the body points of a source, if there is one."""
    if source is None:
        return images
    cache = FLAGS.keypoints_cache
    if cache is None and FLAGS.data_dir is not None:
        root = Path(FLAGS.data_dir)
        cache = (root if root.is_dir() else root.parent) / "keypoints-movenet.csv"
    return data.annotated(images, source, cache, progress("estimating body points"))


def needs_keypoints(model: keras.Model) -> bool:
    """Whether a model is called with body points, too."""
    return "keypoints" in models.input_names(model)


def check_one_model() -> None:
    """Either a run or an export embeds."""
    if (FLAGS.run is None) == (FLAGS.saved_model is None):
        raise InputError("name one model: give either --run or --saved_model, or --features")


def fingerprint() -> str:
    """Of the model of --run or --saved_model; galleries ask for it."""
    if FLAGS.saved_model:
        return _exported(FLAGS.saved_model).fingerprint
    return serving.fingerprint(_trained(FLAGS.run, FLAGS.member), Run(FLAGS.run).flags["flip"])


@cache  # who embeds asks for the fingerprint too
def _exported(path: str) -> serving.ExportedEmbedder:
    return serving.load(path)


@cache
def _trained(run: str, member: str) -> keras.Model:
    return Run(run).load_model(member)


def embedder_of(local: bool = False, also: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """From images (or tracklets) to features, by the model of --run or --saved_model."""
    if FLAGS.saved_model:
        if also:
            raise InputError(f"an export yields no {', '.join(also)}: give --run")
        saved = _exported(FLAGS.saved_model)
        return lambda images: saved.embed_files(images.path.tolist(), FLAGS.embed_batch_size, local)
    model = _trained(FLAGS.run, FLAGS.member)
    if local and FLAGS.local == "pooled":
        model = models.stripes(model, FLAGS.stripes)
    settings = Run(FLAGS.run).flags
    embedder = models.Embedder(model, settings["flip"], local, also)
    source = (FLAGS.keypoints or settings.get("keypoints")) if needs_keypoints(model) else None

    def embed(images: Any) -> Any:
        if source is not None:
            images = with_keypoints(images, source)
        return embedder.embed(images, FLAGS.embed_batch_size, settings.get("frames", 4))

    return embed


def pixel_embedder() -> tuple[Callable[[Any], Any], tuple[int, int]]:
    """From uint8 images (b, h, w, 3) to embeddings (b, d), and their size (h, w)."""
    if FLAGS.saved_model:
        saved = _exported(FLAGS.saved_model)
        if saved.contract is None:
            raise InputError(
                f"{FLAGS.saved_model} does not say which images it takes: export the model again"
            )
        height, width = saved.contract.image_size
        return saved, (height, width)
    model = _trained(FLAGS.run, FLAGS.member)
    if models.takes_clips(model):
        raise InputError(f"{FLAGS.run} is a model of tracklets, not of single images: name another")
    settings = Run(FLAGS.run).flags
    embedder = models.Embedder(model, settings["flip"])
    if not needs_keypoints(model):
        return lambda images: embedder([images]), embedder.image_size
    estimator = data.estimator_of(FLAGS.keypoints or settings["keypoints"])
    return (
        lambda images: embedder([{"images": images, "keypoints": estimator(images)}]),
        embedder.image_size,
    )
