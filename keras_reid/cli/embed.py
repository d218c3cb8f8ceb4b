"""`python embed.py --images=DIR --out=DIR`: embeddings of any number of images, in Parquet files.

The embedder is --model, by default the pretrained model. Repeat the same command after an
interruption, or to embed new and changed images. Several processes can run it at the same time and
share the work. It exits with code 1 if more than 1 % of the images fail.
"""

from dataclasses import dataclass
from typing import ClassVar

from absl import logging

from keras_reid import scale
from keras_reid.cli.common import ModelOptions
from keras_reid.cli.options import Command, option, reject
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import progress, say
from keras_reid.errors import InputError, counted

MOST_SHOWN = 5
MOST_FAILED = 0.01  # maximum fraction of the images


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(ModelOptions):
    """Options of `embed`: the images, the model, and the folder to write."""

    unused: ClassVar[str] = "dataset data_dir protocol keypoints keypoints_cache"

    images: str | None = option(
        "Folder of images, including subfolders; pattern such as 'crops/**/*.jpg'; or CSV table "
        "with a column path and optional columns identity and camera.",
        topic="data",
    )
    out: str | None = option(
        "Folder for Parquet files: a new one, or that of the same command, which continues there.",
        topic="output",
    )
    shard_size: int = option("Number of images per file.", 8192, least=1)
    engine: str = option(
        "Engine: local (this process) or ray (a running Ray cluster).",
        "local",
        choices=tuple(scale.ENGINES),
    )
    workers: int | None = option("Number of Ray workers. Default: one per machine.", least=1)


def embed(options: EmbedOptions) -> "scale.Shards":
    """Embed new and changed images, and print the numbers of images and failures.

    Returns:
        The embeddings, read from the files of `out`.

    Raises:
        InputError: more than 1 % of the images fail; the embeddings of the others are written.
    """
    reject((not options.images or not options.out, "--images and --out are required."))
    import_keras()
    source = options.model_source
    shards = scale.embed(
        str(options.images),
        source.load_model(options.member) if source.is_keras else source,
        str(options.out),
        options.settings.get("flip"),
        options.shard_size,
        options.embed_batch_size,
        options.engine,
        options.workers,
        progress("embedding"),
        **options.loading,
    )
    failed, total = shards.failed, len(shards)
    size = f"{counted(total, 'image')} in {counted(shards.count, 'file')}"
    say(f"{size} of {shards.folder}, {failed:,} failed")
    if failed:
        names = ", ".join(shards.unreadable(MOST_SHOWN)) + (", …" if failed > MOST_SHOWN else "")
        text = f"Images that cannot be decoded have null embeddings: {names}."
        if failed > MOST_FAILED * total:
            raise InputError(
                f"At most {MOST_FAILED:.0%} of the images may fail, got {failed:,} of {total:,}. "
                f"{text} Replace these files and run the same command again."
            )
        logging.warning("%s", text)
    return shards


SHOWN = "model images out engine"
run = Command(embed, EmbedOptions, SHOWN)
