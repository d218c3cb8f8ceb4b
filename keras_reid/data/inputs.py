"""Pixels of paths, PIL images and arrays."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from keras_reid import checks
from keras_reid.data.files import too_large
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.pixels import decode, resize

FORMS = "paths, PIL images, or uint8 RGB arrays (h, w, 3) or (b, h, w, 3)"


def single_images(images: Any) -> list[Any]:
    """Return a flat list of images: paths, PIL images and arrays `(h, w, 3)`.

    The argument is one of these, or a nested list of them. An array `(b, h, w, 3)` holds b images.
    No file is read.

    Args:
        images: paths, PIL images, and arrays of any numeric type with integers from 0 to 255.

    Raises:
        InputError: something else, or pixels that uint8 does not hold.
    """
    if isinstance(images, str | os.PathLike | Image.Image):
        return [images]
    received = type(images).__name__
    array = np.asarray(images) if hasattr(images, "dtype") and hasattr(images, "shape") else None
    if array is not None and array.dtype.kind in "OTU":  # paths or PIL images
        return [image for part in np.ravel(array) for image in single_images(part)]
    if array is not None:
        if array.ndim in (3, 4) and array.shape[-1] == 3 and 0 not in array.shape[-3:]:
            return [*checks.pixels(array).reshape(-1, *array.shape[-3:])]
        received = f"the shape {array.shape}"
    elif isinstance(images, Iterable) and not isinstance(images, bytes | Mapping):
        return [image for part in images for image in single_images(part)]
    raise invalid("images", FORMS, Shown(received))


def pixels_of(image: Any) -> np.ndarray:
    """Return upright pixels uint8 `(h, w, 3)` of a path or a PIL image; return arrays unchanged.

    Raises:
        InputError: a file or a PIL image that does not decode.
    """
    if isinstance(image, np.ndarray):
        return image
    return decode(os.path.expanduser(image) if isinstance(image, str | os.PathLike) else image)


def pixel_batches(
    images: Iterable[Any], batch_size: int, image_size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield batches uint8 `(b, h, w, 3)` of single images, resized to `image_size`.

    Images are decoded in parallel threads. While the caller uses a batch, the next one is decoded.

    Args:
        images: list that `single_images` returned.
        batch_size: b; the last batch may be smaller.
        image_size: (h, w) in pixels.

    Raises:
        InputError: as in `pixels_of`.
    """
    checks.at_least(1, batch_size=batch_size)

    def read(image: Any) -> np.ndarray:
        return resize(pixels_of(image), image_size)

    # A PIL image is loaded on its first use, which is not thread-safe if it occurs twice.
    rest = (pixels_of(image) if isinstance(image, Image.Image) else image for image in images)
    yield from map(np.stack, _read_ahead(read, rest, batch_size))


def decoding_batches(
    paths: Sequence[str], image_size: tuple[int, int], batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows (b,), uint8 (b, h, w, 3)) of the files that decode, in their order.

    Args:
        paths: n files; broken, missing and `too_large` ones are skipped.
        image_size: (h, w) in pixels.
        batch_size: b; batches with skipped files are smaller.
    """

    def read(path: str) -> np.ndarray | None:
        try:
            return None if too_large(path) else resize(decode(path), image_size)
        except InputError:
            return None

    done = 0
    for block in _read_ahead(read, paths, batch_size):
        rows = [row for row, pixels in enumerate(block) if pixels is not None]
        if rows:
            yield done + np.array(rows), np.stack([block[row] for row in rows])
        done += len(block)


def _read_ahead(read: Callable[[Any], Any], items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of `size` results in order; threads read one list ahead of the caller."""
    rest = iter(items)
    with ThreadPoolExecutor() as pool:

        def started() -> list[Future[Any]]:
            return [pool.submit(read, item) for item in itertools.islice(rest, size)]

        block = started()
        while block:
            results = [future.result() for future in block]
            block = started()
            yield results
