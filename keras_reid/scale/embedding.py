"""From image files to shards of embeddings, in this process or on a Ray cluster."""

import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_reid import checks, models, serving
from keras_reid.data.pipeline import decoding_batches
from keras_reid.errors import InputError
from keras_reid.scale.listing import listed
from keras_reid.scale.shards import Shards, create

Progress = Callable[[int, int], None]
PAUSE = 2.0  # seconds between looks at what other processes do


def embed(
    images: str | os.PathLike[str] | Iterable[str],
    model: keras.Model | str | os.PathLike[str],
    out: str | os.PathLike[str],
    flip: bool = False,
    shard_size: int = 8192,
    batch_size: int = 16,
    engine: str = "local",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Shards:
    """Embeddings of length 1 of all images, in Parquet files in the folder `out`.

    Memory does not grow with the number of images but for one shard, and each image is in one file
    once: a shard takes its name when it is whole. A call that was killed is made again, and embeds
    what is missing. Several processes, of several machines with the folders in common, may make
    the same call at once: each takes shards that no other is at.

    Args:
        images: paths; or a folder, a pattern such as `"crops/**/*.jpg"`, or a CSV table with the
            columns path and, if wanted, identity and camera.
        model: of `models.build`, or the folder of an export. Of images alone.
        out: new folder, or one of the same call.
        flip: embed the mirrored images too, of a model that was not exported.
        shard_size: images of a file.
        batch_size: images at a time.
        engine: `"local"`, or `"ray"`: the cluster that is running, whose machines have the images
            and `out` under the same names.
        workers: of Ray, each a process with a model; None: one for each machine.
        progress: called with the number of images done and of all.

    Raises:
        InputError: no images, a folder with something else, a model with other inputs, no cluster
            or a package that is not installed.
    """
    checks.at_least(1, shard_size=shard_size, batch_size=batch_size)
    checks.one_of(ENGINES, engine=engine)
    worker = Worker(model, flip, batch_size)
    if isinstance(images, str | os.PathLike):
        images = asked = os.path.abspath(os.path.expanduser(images))
    else:
        images = [os.path.abspath(path) for path in images]
        asked = f"{len(images)} paths, {zlib.crc32(os.fsencode(chr(0).join(images))):08x}"
    about = {
        "images": asked,
        "shard_size": shard_size,
        "flip": flip,
        "fingerprint": worker.fingerprint,
    }
    shards = create(Path(out).expanduser().absolute(), listed(images), shard_size, about)
    tell = progress or (lambda done, total: None)
    total = len(shards)
    while missing := shards.missing:
        done = total - sum(shards.sizes[number] for number in missing)
        tell(done, total)
        for number in ENGINES[engine](shards, missing, worker, workers):
            done += shards.sizes[number] if shards.file(number).exists() else 0
            tell(done, total)
        if shards.missing == missing:  # other processes are at them
            time.sleep(PAUSE)
    tell(total, total)
    return shards


class Worker:
    """Embeds shards with a model, which other processes get by pickling it.

    Args:
        model, flip, batch_size: as of `embed`.

    Raises:
        InputError: a model that takes more than images, or `flip` of an export.
    """

    def __init__(
        self, model: keras.Model | str | os.PathLike[str], flip: bool, batch_size: int
    ) -> None:
        self.model, self.flip, self.batch_size = model, flip, batch_size
        if isinstance(model, keras.Model):
            inputs = models.input_names(model)
            self.fingerprint = serving.fingerprint(model, flip)
        else:
            inputs = getattr(self._exported, "inputs", {"images"})
            self.fingerprint = self._exported.fingerprint
            if flip:
                raise InputError("what an export does with mirrored images was decided by then")
        if inputs != {"images"}:
            raise InputError(
                f"single images are embedded: received a model that takes "
                f"{', '.join(sorted(inputs))}; name one of images"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Without what each process opens for itself."""
        asked = ("model", "flip", "batch_size", "fingerprint")
        return {name: vars(self)[name] for name in asked}

    @cached_property
    def _exported(self) -> serving.ExportedEmbedder:
        return serving.load(self.model)

    @cached_property
    def _opened(self) -> tuple[Callable[[Any], np.ndarray], tuple[int, int]]:
        """From uint8 images (b, h, w, 3) to embeddings (b, d), and their size (h, w)."""
        if isinstance(self.model, keras.Model):
            embedder = models.Embedder(self.model, self.flip)
            return lambda images: embedder([images]), embedder.image_size
        return self._exported, self._exported.image_size

    def __call__(self, shards: Shards, number: int) -> bool:
        """Embeds a shard, unless it is there or another process is at it; whether it did."""
        with shards.claimed(number) as mine:
            if mine:
                embed, size = self._opened
                table = shards.listed(number)
                batches = decoding_batches(table["path"].to_pylist(), size, self.batch_size)
                found = [(rows.numpy(), embed(pixels)) for rows, pixels in batches]
                if not found:  # no file decodes: an image that is none, for the width
                    found = [(np.arange(0), embed(np.zeros((1, *size, 3), np.uint8))[:0])]
                shards.write(number, table, *map(np.concatenate, zip(*found, strict=True)))
        return mine


def _local(
    shards: Shards, missing: Sequence[int], worker: Worker, workers: int | None
) -> Iterator[int]:
    if workers is not None:
        raise InputError(
            "workers are Ray's: for the local engine make the same call in several processes"
        )
    for number in missing:
        worker(shards, number)
        yield number


def _ray(
    shards: Shards, missing: Sequence[int], worker: Worker, workers: int | None
) -> Iterator[int]:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            'the engine ray needs Ray: pip install ".[scale]" in the checkout, on all machines'
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        except ConnectionError as error:
            raise InputError(
                "the engine ray joins a cluster, of which none is running: begin one by ray start, "
                "or set RAY_ADDRESS"
            ) from error
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    machines = sum(node["Alive"] for node in ray.nodes())
    rows = ray.data.from_items(
        [{"shard": number} for number in missing], override_num_blocks=len(missing)
    )
    # An actor that dies is made anew, and what it was at is given to another.
    done = rows.map(
        _Actor,
        fn_constructor_args=(str(shards.folder), worker),
        compute=ray.data.ActorPoolStrategy(size=workers or machines),
        num_cpus=1,
    )
    for row in done.iter_rows():
        yield row["shard"]


class _Actor:
    def __init__(self, folder: str, worker: Worker) -> None:
        self.shards, self.worker = Shards(folder), worker

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        self.worker(self.shards, int(row["shard"]))
        return row


ENGINES: dict[str, Callable[[Shards, Sequence[int], Worker, int | None], Iterator[int]]] = {
    "local": _local,
    "ray": _ray,
}
