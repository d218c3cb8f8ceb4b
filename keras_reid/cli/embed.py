"""`python embed.py --images=DIR --out=DIR`: embeddings of any number of images, in Parquet files.

The embedder is that of --run or --saved_model, else the one that comes with the package. The same
command goes on where one was killed, and helps where one is at work.
"""

from dataclasses import dataclass

from absl import logging

from keras_reid import scale
from keras_reid.choices import ENGINES
from keras_reid.cli.options import Command, option
from keras_reid.cli.shared import ModelOptions, progress, say
from keras_reid.errors import InputError

MOST_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(ModelOptions):
    """Which images, by whom, and where the embeddings go."""

    images: str | None = option(
        "Folder of images, with those in its folders; a pattern such as 'crops/**/*.jpg'; or a CSV "
        "table with columns path and, if wanted, identity and camera."
    )
    out: str | None = option("New folder of Parquet files, or one of the same command.")
    shard_size: int = option("Images of a file.", 8192, least=1)
    engine: str = option(
        "local: this process; ray: a Ray cluster that is running.",
        "local",
        choices=ENGINES,
    )
    workers: int | None = option("Of ray; default: one for each machine.", least=1)


def embed(options: EmbedOptions) -> "scale.Shards":
    """Embeds what is missing, and says what there is."""
    if not options.images or not options.out:
        raise InputError("give --images and --out: which images are embedded, and where to")
    options.check_one_model()
    shards = scale.embed(
        options.images,
        options.saved_model or options.model,
        options.out,
        not options.saved_model and options.settings["flip"],
        options.shard_size,
        options.embed_batch_size,
        options.engine,
        options.workers,
        progress("embedding"),
    )
    say(f"{len(shards):,} images in {shards.count:,} files of {shards.folder}")
    broken = shards.unreadable(MOST_SHOWN)
    if broken:
        logging.warning("of files that do not decode embeddings are null: %s", ", ".join(broken))
    return shards


run = Command(
    embed,
    EmbedOptions,
    "run",
    "saved_model",
    "images",
    "out",
    "engine",
)
