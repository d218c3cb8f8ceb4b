"""Loading of decoded and resized images from files, or from a cache in memory or in a file.

TensorFlow reads the memory mapping of a cache in place. The anonymous one takes n·h·w·3 bytes of
memory. The system loads the pages of a file on access.
"""

import contextlib
import hashlib
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from keras_reid.data.images import ORIENTATION, PersonImages
from keras_reid.data.validation import readable
from keras_reid.io import check_room, locked, replaced_file
from keras_reid.names import StrPath, expanded
from keras_reid.pixels import BY_PILLOW, graph_decode, graph_decode_upright, graph_resize

Cache = StrPath | None  # a folder, or "memory"
Load = Callable[[tf.data.Dataset, int], tf.data.Dataset]

FORMAT = "keras_reid decoded uint8 images, version 2"


def readable_or_cached(
    images: PersonImages, image_size: tuple[int, int], cache: Cache
) -> PersonImages:
    """Return the readable images; if there is a complete cache file, return all images."""
    if cache not in (None, "memory"):
        file = cache_file(cache, images, image_size)
        if complete(file, (len(images), *image_size, 3)):
            return images
    return readable(images)


def load_rows(images: PersonImages, image_size: tuple[int, int], cache: Cache) -> Load:
    """Return a function `load(rows, b)` that reads batches of b images.

    `rows` is a stream of batches of row numbers (b,). The function returns a stream of (row
    numbers, images uint8 (b, h, w, 3)).
    """
    path, turns = tf.constant(images.path), images.columns.get(ORIENTATION)
    in_graph = turns is not None and (turns != BY_PILLOW).all()

    @tf.autograph.experimental.do_not_convert
    def read(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        turn = BY_PILLOW if turns is None else tf.constant(turns)[row]
        decode = graph_decode_upright if in_graph else graph_decode
        return row, graph_resize(decode(tf.io.read_file(path[row]), turn), image_size)

    def from_files(rows: tf.data.Dataset, batch: int) -> tf.data.Dataset:
        return rows.unbatch().map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch)

    if cache is None:
        return from_files
    pool = _cached(images, image_size, cache, from_files)

    def gather(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return rows, tf.gather(pool, rows)

    return lambda rows, batch: rows.map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def _cached(
    images: PersonImages, image_size: tuple[int, int], cache: StrPath, load: Load
) -> tf.Tensor:
    """Return all images (n, h, w, 3) from the cache file, or decoded by `load`."""

    def chunks() -> Iterator[np.ndarray]:
        for _, pixels in load(tf.data.Dataset.range(len(images)).batch(64), 64):
            yield pixels.numpy()

    shape = (len(images), *image_size, 3)
    if cache == "memory":
        return in_memory(chunks(), shape)
    file = cache_file(cache, images, image_size)
    if not complete(file, shape):
        write(file, chunks(), shape)
    return read(file, shape)


def in_memory(chunks: Iterable[np.ndarray], shape: tuple[int, int, int, int]) -> tf.Tensor:
    """Return the images (n, h, w, 3) of all chunks as one uint8 tensor of n·h·w·3 bytes."""
    logging.info("caching %d images of %d×%d: %s of memory", *shape[:3], _gigabytes(shape))
    mapping = mmap.mmap(-1, int(np.prod(shape)))
    for chunk in chunks:
        mapping.write(np.ascontiguousarray(chunk).data)
    return _tensor(mapping, shape)


def cache_file(folder: StrPath, images: PersonImages, size: tuple[int, int]) -> Path:
    """Return the cache file in `folder` for these images at this size.

    Its name contains a hash of the path, size, modification time and inode time of every image.
    Other images, other sizes and edited files have another cache file.
    """
    digest = hashlib.sha256(f"{FORMAT}, {size[0]}×{size[1]}\n".encode())
    for path in images.path:
        stamp = None
        with contextlib.suppress(OSError):  # `readable` reports missing files
            status = os.stat(path)
            # Tools such as rsync -t and tar restore st_mtime, but no tool st_ctime.
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(f"{os.path.abspath(path)} {stamp}\n".encode())
    return expanded(folder) / f"{digest.hexdigest()[:24]}-{len(images)}x{size[0]}x{size[1]}.uint8"


def complete(file: Path, shape: tuple[int, int, int, int]) -> bool:
    """Return whether the file exists and has all its bytes."""
    return file.is_file() and file.stat().st_size == np.prod(shape)


def write(file: Path, chunks: Iterable[np.ndarray], shape: tuple[int, int, int, int]) -> None:
    """Write the images; if another process writes them, wait for it instead.

    Raises:
        InputError: less than n·h·w·3 bytes of the disk are free.
    """
    with locked(file.with_name(f".{file.name}.lock"), wait=True):
        if complete(file, shape):
            return
        check_room(file, int(np.prod(shape)))
        logging.info("caching %d images of %d×%d: %s in %s", *shape[:3], _gigabytes(shape), file)
        with replaced_file(file) as partial, partial.open("wb") as opened:
            for chunk in chunks:
                opened.write(np.ascontiguousarray(chunk).data)


def read(file: Path, shape: tuple[int, int, int, int]) -> tf.Tensor:
    """Return the images (n, h, w, 3) of a complete file, loaded on access."""
    # Copy on write: TensorFlow shares writable arrays only.
    with open(file, "rb") as opened:
        mapping = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    return _tensor(mapping, shape)


def _tensor(mapping: mmap.mmap, shape: tuple[int, int, int, int]) -> tf.Tensor:
    # tf.constant would copy the memory.
    array = np.frombuffer(mapping, np.uint8).reshape(shape)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _gigabytes(shape: tuple[int, int, int, int]) -> str:
    return f"{np.prod(shape) / 1e9:.2f} GB"
