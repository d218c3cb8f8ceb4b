"""Embedding of image files into shards, in this process or on a Ray cluster."""

import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_reid import checks, inference
from keras_reid.data.inputs import decoding_batches
from keras_reid.detection import Photos
from keras_reid.detection.photos import CropFolder
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.io import content_digest
from keras_reid.names import StrPath, expanded
from keras_reid.saving import register
from keras_reid.scale.creation import create
from keras_reid.scale.listing import listed, listed_persons
from keras_reid.scale.registry import ENGINES
from keras_reid.scale.shards import CROPS, Shards

if TYPE_CHECKING:
    import keras

Progress = Callable[[int, int], None]
PAUSE = 2.0  # seconds to wait for other processes


# The options of a call are arguments, which commands and notebooks pass by name.
def embed(
    images: StrPath | Iterable[str],
    model: "keras.Model | StrPath | inference.Source",
    out: StrPath,
    flip: bool | None = None,
    shard_size: int = 8192,
    batch_size: int = 16,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    photos: Photos | None = None,
    **options: Any,
) -> Shards:
    """Write L2-normalized embeddings of all images to Parquet files in the folder `out`.

    Memory holds one shard at a time. Each image is in one file, and files are written atomically.
    A repeated call embeds only missing images. Several processes, also on machines with shared
    folders, may make the same call; each process takes unclaimed shards.

    A further call lists the images again. It embeds new images, changed images, and images that
    did not decode before. It updates identities and cameras, and drops the rows of images that are
    no longer listed. All paths are in memory if the list changed, or is a table.

    Args:
        images: paths; or a folder, a pattern such as `"crops/**/*.jpg"`, or a CSV table with the
            columns path and optionally identity and camera.
        model: model of `models.build`, or a source of `inference.load`; images are its only input.
        out: new folder, or that of an earlier, equal call.
        flip: average with the embeddings of mirrored images; None: as the source was trained.
        shard_size: images of a file.
        batch_size: images at a time.
        engine: `"local"`, or `"ray"` for a running cluster. All its machines must have the images
            and `out` at the same paths.
        workers: number of Ray processes, each with a model; None: one for each machine.
        progress: called with the numbers of processed and of all images.
        overwrite: replace a folder of an earlier call with other images, model or settings.
        photos: finder of persons. Each person of a photo is an image `photo.jpg#2`; the crops are
            in the folder `_crops` of `out`. None: images show one person each.
        options: further arguments of `inference.load`.

    Raises:
        InputError: no images, a folder with other files, a model with other inputs, no cluster, or
            a package that is not installed.

    See the guide to scaling (docs/scaling.md) for examples.
    """
    checks.at_least(1, shard_size=shard_size, batch_size=batch_size)
    checks.one_of(ENGINES, engine=engine)
    worker = Worker(model, batch_size, flip=flip, **options)
    if isinstance(images, str | os.PathLike):
        images = source = os.path.abspath(os.path.expanduser(images))
    else:
        images = [os.path.abspath(os.path.expanduser(path)) for path in images]
        source = f"{len(images)} paths, {zlib.crc32(os.fsencode(chr(0).join(images))):08x}"
    about = {
        "images": source,
        "shard_size": shard_size,
        "flip": worker.flip,
        "fingerprint": worker.fingerprint,
    }
    folder, entries = expanded(out).absolute(), listed(images)
    about["detect"] = "never" if photos is None else photos.mode
    if photos is not None:
        about["detector"] = photos.name
        entries = listed_persons(entries, CropFolder(folder / CROPS, photos))
    shards = create(folder, entries, shard_size, about, overwrite)
    report = progress or (lambda done, total: None)
    total = len(shards)
    pending = dict(enumerate(shards.sizes))
    while pending:
        before = len(pending)
        report(total - sum(pending.values()), total)
        for number in ENGINES[engine](shards, list(pending), worker, workers):
            del pending[number]
            report(total - sum(pending.values()), total)
        if len(pending) == before:  # other processes embed them
            time.sleep(PAUSE)
    return shards


class Worker:
    """Embedder of shards that can be pickled for other processes.

    Args:
        model, batch_size: see `embed`.
        options: arguments of `inference.load`.

    Raises:
        InputError: the model has other inputs than images, or as in `inference.load`.
    """

    def __init__(
        self,
        model: "keras.Model | StrPath | inference.Source",
        batch_size: int,
        **options: Any,
    ) -> None:
        self.model, self.batch_size, self.options = model, batch_size, options
        if self._embedder.inputs != {"images"}:
            inputs = Shown(", ".join(sorted(self._embedder.inputs)))
            raise invalid("model", "a model with single images as its only input", inputs)
        self.fingerprint = self._embedder.fingerprint
        self.flip = self._embedder.flip

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the embedder, which each process opens again."""
        state = {name: value for name, value in vars(self).items() if name != "_embedder"}
        return {"registered": _Registration(), **state}  # unpickled before the model

    @cached_property
    def _embedder(self) -> inference.Embedder:
        return inference.load_embedder(self.model, **self.options)

    def __call__(self, shards: Shards, number: int) -> bool:
        """Embed the missing images of a shard; return False if another process embeds it."""
        with shards.claimed(number) as mine:
            if mine and not shards.fresh(number):
                self._update(shards, number)
        return mine

    def _update(self, shards: Shards, number: int) -> None:
        """Embed the files of a shard that are new or changed, or did not decode before."""
        table = shards.listed(number)
        paths = table["path"].to_pylist()
        crops = CropFolder(shards.folder / CROPS)
        files = [crops.file(path) for path in paths]
        digests = [content_digest(file) for file in files]  # before the files are decoded
        vectors = shards.vectors(number)
        contents = enumerate(zip(paths, digests, strict=True))
        rows = {row: vectors[content] for row, content in contents if content in vectors}
        todo = np.array([row for row in range(len(paths)) if row not in rows], int)
        decoded = dict(self._decoded(todo, files)) if len(todo) else {}
        if not decoded and shards.complete(number) and shards.digests(number) == digests:
            return
        rows = dict(sorted((rows | decoded).items()))
        embeddings = np.array(list(rows.values()), np.float32)
        embeddings = embeddings.reshape(-1, self._embedder.embedding_dim)
        shards.write(number, table, np.array(list(rows), int), embeddings, digests)

    def _decoded(self, rows: np.ndarray, paths: list[str]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield each row with its embedding (d,), without rows of files that do not decode."""
        files = [paths[row] for row in rows.tolist()]
        for index, pixels in decoding_batches(files, self._embedder.image_size, self.batch_size):
            embeddings = self._embedder([pixels])
            yield from zip(rows[index].tolist(), embeddings, strict=True)


class _Registration:
    """Registers the serializable classes in the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return register, ()


def embed_here(
    shards: Shards, missing: Sequence[int], worker: Worker, workers: int | None
) -> Iterator[int]:
    """Embed shards in this process and yield their numbers."""
    if workers is not None:
        fix = "Start the same command in several processes instead."
        raise invalid("workers", "omitted without the engine ray", workers, fix)
    for number in missing:
        if worker(shards, number):
            yield number


def embed_on_ray(
    shards: Shards, missing: Sequence[int], worker: Worker, workers: int | None
) -> Iterator[int]:
    """Embed shards on a running Ray cluster and yield their numbers."""
    ray = checks.installed("ray", "scale")
    checks.installed("ray.data", "scale")
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            message = "No Ray cluster found. Start one with ray start, or set RAY_ADDRESS."
            raise InputError(message) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    machines = sum(node["Alive"] for node in ray.nodes())
    rows = ray.data.from_items(
        [{"shard": number} for number in missing], override_num_blocks=len(missing)
    )
    # Ray restarts a lost process and repeats its work.
    done = rows.map(
        _Actor,
        fn_constructor_args=(str(shards.folder), worker),
        compute=ray.data.ActorPoolStrategy(size=workers or machines),
        num_cpus=1,
    )
    for row in done.iter_rows():
        if row["done"]:
            yield int(row["shard"])


class _Actor:
    def __init__(self, folder: str, worker: Worker) -> None:
        self.shards, self.worker = Shards(folder), worker

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "done": self.worker(self.shards, int(row["shard"]))}
