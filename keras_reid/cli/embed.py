"""`keras-reid embed --images=DIR --out=DIR`: embeddings of any number of images, in Parquet files.

The embedder is --model, by default the pretrained model. Repeat the same command after an
interruption, or to embed new and changed images. Several processes can run it at the same time and
share the work. It exits with code 1 if more than 1 % of the images fail.
"""

from dataclasses import dataclass
from typing import ClassVar

from keras_reid import inference, scale
from keras_reid.cli.common import ModelOptions
from keras_reid.cli.options import Command, option, reject
from keras_reid.cli.photos import PhotoOptions, Skipped
from keras_reid.cli.terminal import progress, say
from keras_reid.errors import counted
from keras_reid.scale.listing import listed


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(ModelOptions, PhotoOptions):
    """Options of `embed`: the images, the model, and the folder to write."""

    unused: ClassVar[str] = "dataset data_dir protocol keypoints keypoints_cache"
    converts: ClassVar[bool] = True

    images: str | None = option(
        "Folder of images, including subfolders; pattern such as 'crops/**/*.jpg'; or CSV table "
        "with a column path and optional columns identity and camera.",
        topic="data",
    )
    out: str | None = option(
        "Folder for Parquet files. The same command continues in an existing folder. --overwrite "
        "replaces a folder of other settings.",
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
    if options.strict:
        options.check_images([image.path for image in listed(str(options.images))])
    embedder = options.loaded
    shards = scale.embed(
        str(options.images),
        embedder.model if isinstance(embedder, inference.KerasEmbedder) else options.model_source,
        str(options.out),
        options.settings.get("flip"),
        options.shard_size,
        options.embed_batch_size,
        options.engine,
        options.workers,
        progress("embedding"),
        options.overwrite,
        None if options.detect == "never" else options.photos,
        **options.loading,
    )
    failed, total = shards.failed, len(shards)
    size = f"{counted(total, 'image')} in {counted(shards.count, 'file')}"
    say(f"{size} of {shards.folder}, {failed:,} failed")
    Skipped(total, shards.unreadable(failed), options.photos.absent).finish()
    return shards


SHOWN = "model images out engine"
run = Command(embed, EmbedOptions, SHOWN)
