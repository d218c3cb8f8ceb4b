"""`python evaluate.py --run=RUN --dataset=NAME --data_dir=DIR`: scores a trained model."""

from pathlib import Path

import numpy as np
from absl import flags

from keras_reid import data, models, serving
from keras_reid.cli.shared import FLAGS, command, say
from keras_reid.errors import InputError
from keras_reid.training.callbacks import rank_images
from keras_reid.training.runs import Run

flags.DEFINE_string("saved_model", None, "An exported export/NAME/VERSION folder instead.")
flags.DEFINE_string("out", None, "Write the scores to this new JSON file, too.")


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

    if FLAGS.run:
        embedder = models.Embedder(Run(FLAGS.run).load_model(FLAGS.member), settings["flip"])

        def embed(images: data.PersonImages) -> np.ndarray:
            return embedder(data.image_batches(images, FLAGS.batch_size, embedder.image_size))
    else:
        saved = serving.load(FLAGS.saved_model)

        def embed(images: data.PersonImages) -> np.ndarray:
            return saved.embed_files(images.path.tolist(), FLAGS.batch_size)

    result = rank_images(
        embed,
        data.readable(dataset.query),
        data.readable(dataset.gallery),
        FLAGS.protocol,
        name,
    )
    say(str(result))
    if FLAGS.out:
        Path(FLAGS.out).write_text(result.to_json() + "\n")
        say(f"written to {FLAGS.out}")


run = command(main)
