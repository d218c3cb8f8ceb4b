"""Pixels of paths, PIL images and arrays."""

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from keras_reid import checks
from keras_reid.errors import Shown, invalid
from keras_reid.pixels import decode, resize

FORMS = "paths, PIL images, or uint8 RGB arrays (h, w, 3) or (b, h, w, 3)"


def image_parts(images: Any) -> Iterator[Any]:
    """Yield the paths, PIL images and arrays `(b, h, w, 3)` of one of these, or of nested lists.

    An array `(h, w, 3)` is a batch of one. A mapping is yielded as it is.

    Raises:
        InputError: something else, or pixels that uint8 does not hold.
    """
    if isinstance(images, str | os.PathLike | Image.Image | Mapping):
        yield images
    elif hasattr(images, "dtype") and hasattr(images, "shape"):
        array = np.asarray(images)
        if array.dtype.kind in "OTU":  # of paths, or of PIL images
            yield from image_parts(array.tolist())
        else:
            yield _batch(array)
    elif isinstance(images, Iterable) and not isinstance(images, bytes):
        for image in images:
            yield from image_parts(image)
    else:
        raise invalid("images", FORMS, Shown(type(images).__name__))


def _batch(array: np.ndarray) -> np.ndarray:
    if array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape[-3:]:
        received = Shown(f"the shape {array.shape}")
        raise invalid("images", FORMS, received, "Convert other images with PIL.Image.fromarray.")
    pixels = checks.pixels(array)
    return pixels[None] if pixels.ndim == 3 else pixels


def pixels_of(image: Any) -> np.ndarray:
    """Return upright pixels uint8 `(h, w, 3)` of a path or a PIL image; return arrays unchanged.

    Raises:
        InputError: a file or a PIL image that does not decode.
    """
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, Image.Image):
        return decode(image)
    if isinstance(image, Mapping):
        raise invalid("images", FORMS, Shown(f"a mapping of {', '.join(image)}"))
    path = os.path.expanduser(image)
    if os.path.isdir(path):
        fix = "Pass keras_reid.data.unlabeled(folder)."
        raise invalid("images", "image files", Shown(f"the folder {path}"), fix)
    return decode(path)


def single_images(images: Any) -> list[Any]:
    """List the paths, PIL images and arrays `(h, w, 3)` of `image_parts`; no file is read.

    Raises:
        InputError: as in `image_parts`.
    """
    return [
        image
        for part in image_parts(images)
        for image in (part if isinstance(part, np.ndarray) else (part,))
    ]


def pixel_batches(
    images: Iterable[Any], batch_size: int, image_size: tuple[int, int]
) -> Iterator[np.ndarray]:
    """Yield batches uint8 `(b, h, w, 3)` of single images, resized to `image_size`.

    Args:
        images: of `single_images`. The images of a batch are decoded in parallel.
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
    with ThreadPoolExecutor() as pool:
        while block := list(itertools.islice(rest, batch_size)):
            yield np.stack(list(pool.map(read, block)))
