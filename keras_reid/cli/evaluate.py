"""`python evaluate.py --run=RUN --dataset=NAME --data_dir=DIR`: scores a trained model."""

from pathlib import Path
from typing import Any

from absl import flags

from keras_reid import data, models, serving
from keras_reid.cli.shared import FLAGS, command, say
from keras_reid.errors import InputError
from keras_reid.training.callbacks import rank_images
from keras_reid.training.runs import Run

flags.DEFINE_string("saved_model", None, "An exported export/NAME/VERSION folder instead.")
flags.DEFINE_string("out", None, "Write the scores to this new JSON file, too.")
flags.DEFINE_enum(
    "distance",
    "global",
    ["global", "local", "global_local"],
    "What is compared: embeddings, aligned stripes, or both (DMLI, the sum of the two).",
)
flags.DEFINE_enum(
    "local",
    "pooled",
    ["pooled", "trained"],
    "Stripes pooled from the last feature map of any model of a --run, or its own output 'local'.",
)
flags.DEFINE_integer(
    "stripes", None, "How many are pooled; default: one for each row of the map.", lower_bound=1
)


def main(argv: list[str]) -> None:
    """Reads the flags, embeds query and gallery, prints one table."""
    if (FLAGS.run is None) == (FLAGS.saved_model is None):
        raise InputError("evaluate one model: give either --run or --saved_model")
    if FLAGS.out and Path(FLAGS.out).exists():
        raise InputError(f"--out is a new file: {FLAGS.out!r} exists")
    settings = Run(FLAGS.run).flags if FLAGS.run else {}
    name = FLAGS.dataset or settings.get("dataset")
    data_dir = FLAGS.data_dir or (settings.get("data_dir") if not FLAGS.dataset else None)
    if name is None or data_dir is None:
        raise InputError("a model is scored on images: give --dataset and --data_dir")
    dataset = data.load(name, data_dir)
    if dataset.query is None or dataset.gallery is None:
        raise InputError(f"a score needs query and gallery images: {data_dir!r} has none")

    local = FLAGS.distance != "global"
    if FLAGS.run:
        model = Run(FLAGS.run).load_model(FLAGS.member)
        if local and FLAGS.local == "pooled":
            model = models.stripes(model, FLAGS.stripes)
        embedder = models.Embedder(model, settings["flip"], local)

        def embed(images: data.PersonImages) -> Any:
            return embedder(data.image_batches(images, FLAGS.batch_size, embedder.image_size))
    else:
        saved = serving.load(FLAGS.saved_model)

        def embed(images: data.PersonImages) -> Any:
            return saved.embed_files(images.path.tolist(), FLAGS.batch_size, local)

    result = rank_images(
        embed,
        data.readable(dataset.query),
        data.readable(dataset.gallery),
        FLAGS.protocol,
        name,
        None if FLAGS.distance == "global" else FLAGS.distance,
    )
    say(str(result))
    if FLAGS.out:
        Path(FLAGS.out).write_text(result.to_json() + "\n")
        say(f"written to {FLAGS.out}")


run = command(main)
