"""Decoded and resized images, kept in memory or in a file, as one tensor to gather rows from.

Both are a memory mapping that TensorFlow reads in place: an anonymous one costs n·h·w·3 bytes of
memory once, a file is paged in by the system as rows are asked for.
"""

import contextlib
import hashlib
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from keras_reid.data.images import PersonImages
from keras_reid.errors import InputError
from keras_reid.io import check_room, locked, replaced_file
from keras_reid.names import expanded

FORMAT = "keras_reid decoded uint8 images, version 2"


def in_memory(chunks: Iterable[np.ndarray], shape: tuple[int, int, int, int]) -> tf.Tensor:
    """The images (n, h, w, 3) of all chunks as one uint8 tensor of n·h·w·3 bytes."""
    logging.info("caching %d images of %d×%d: %s of memory", *shape[:3], _gigabytes(shape))
    mapping = mmap.mmap(-1, int(np.prod(shape)))
    for chunk in chunks:
        mapping.write(np.ascontiguousarray(chunk).data)
    return _tensor(mapping, shape)


def cache_file(folder: str | os.PathLike[str], images: PersonImages, size: tuple[int, int]) -> Path:
    """The file in `folder` for exactly these images at this size.

    The name has a hash of the path, length and times of change of every image, of its content and
    of its inode. Other images, other sizes and edited files have another cache file.

    Raises:
        InputError: `folder` is there and is not a folder.
    """
    folder = expanded(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"cache must be None, 'memory' or a folder, but {folder} is a file")
    digest = hashlib.sha256(f"{FORMAT}, {size[0]}×{size[1]}\n".encode())
    for path in images.path:
        stamp = None
        with contextlib.suppress(OSError):  # a file that cannot be read is reported elsewhere
            status = os.stat(path)
            # Tools such as rsync -t and tar restore st_mtime, but no tool st_ctime.
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        digest.update(f"{os.path.abspath(path)} {stamp}\n".encode())
    return folder / f"{digest.hexdigest()[:24]}-{len(images)}x{size[0]}x{size[1]}.uint8"


def complete(file: Path, shape: tuple[int, int, int, int]) -> bool:
    """Whether the file is there with all its bytes; one that was cut short is written again."""
    return file.is_file() and file.stat().st_size == np.prod(shape)


def write(file: Path, chunks: Iterable[np.ndarray], shape: tuple[int, int, int, int]) -> None:
    """Write the images unless another process does, which is waited for.

    Raises:
        InputError: the disk has no room for n·h·w·3 bytes.
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
    """The images (n, h, w, 3) of a complete file, paged in as they are used."""
    # Copy on write: nobody writes, but an array that TensorFlow may share must be writable.
    with open(file, "rb") as opened:
        mapping = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    return _tensor(mapping, shape)


def _tensor(mapping: mmap.mmap, shape: tuple[int, int, int, int]) -> tf.Tensor:
    # tf.constant would copy, and so need the memory twice.
    array = np.frombuffer(mapping, np.uint8).reshape(shape)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _gigabytes(shape: tuple[int, int, int, int]) -> str:
    return f"{np.prod(shape) / 1e9:.2f} GB"
