"""From file names to pixels, and which files have any."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tensorflow as tf
from absl import logging
from PIL import Image

from keras_reid import checks
from keras_reid.data.images import PersonImages
from keras_reid.errors import InputError


def decode(path: tf.Tensor) -> tf.Tensor:
    """The file's pixels: JPEG, PNG or BMP to uint8 RGB (h, w, 3); runs eagerly and in a graph.

    Raises:
        tf.errors.OpError: the file is missing, empty, truncated or not an image.
    """
    return decode_bytes(tf.io.read_file(path))


def decode_bytes(content: tf.Tensor) -> tf.Tensor:
    """`decode` of what a file contains."""
    # decode_image looks at the first bytes, not at the file's suffix, and hands JPEG to the same
    # decoder, with the same fast integer transform, as decode_jpeg.
    image = tf.io.decode_image(content, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def decodable(path: np.ndarray) -> np.ndarray:
    """Mask (n,) of the files that decode; every file is read once, in parallel."""

    def survives(index: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The shape goes out with the index because tf.data prunes a decode whose result is unused,
        # a control dependency notwithstanding: every file would pass.
        return index, tf.shape(decode(path))

    mask = np.zeros(len(path), bool)
    if len(path) == 0:
        return mask
    files = tf.data.Dataset.from_tensor_slices(path).enumerate()
    alive = files.map(survives, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    for indices, _ in alive.batch(1024).as_numpy_iterator():
        mask[indices] = True
    return mask


LEAST_PIXELS, MOST_PIXELS = 8, 10**8  # of a side; of the whole image


def unfit(path: str | os.PathLike[str]) -> str | None:
    """Why no person can be seen in a file, or None if one might; its header alone is read."""
    try:
        with warnings.catch_warnings():  # Pillow warns of large images, which are refused here
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | IsADirectoryError)
        return "is no file" if missing else "is no image"
    except Image.DecompressionBombError:
        return f"has more than {MOST_PIXELS:,} pixels"
    except Exception as error:  # a broken header
        return f"is a broken image ({str(error)[:80]})"
    if min(width, height) < LEAST_PIXELS:
        return f"has {height}×{width} pixels, fewer than {LEAST_PIXELS} on a side"
    if width * height > MOST_PIXELS:
        return f"has {height:,}×{width:,} pixels, more than {MOST_PIXELS:,}"
    return None


def readable(images: PersonImages, max_unreadable: float = 0.01) -> PersonImages:
    """The images that decode, which are then `checked`; one warning names those that do not.

    Args:
        images: n images.
        max_unreadable: the largest fraction of them, 0 to 1, that may be unreadable.

    Raises:
        InputError: more than `max_unreadable` of the images are unreadable, or all of them.
    """
    hint = "the fraction of the images that may be unreadable"
    checks.within("[0, 1]", hint, max_unreadable=max_unreadable)
    if images.checked:
        return images
    mask = decodable(images.path)
    if mask.all():
        return replace(images, checked=True)
    broken = images.path[~mask].tolist()
    if len(broken) > max_unreadable * len(images) or not mask.any():
        raise InputError(
            f"at most {max_unreadable:.2%} of the images may be unreadable, but {len(broken)} of "
            f"{len(images)} are: restore or remove {name_some(broken)}"
        )
    logging.warning("skipping %d unreadable images: %s", len(broken), ", ".join(broken))
    return replace(images[mask], checked=True)


def name_some(names: Sequence[object], most: int = 5) -> str:
    """`a, b, c and 7 more`."""
    rest = len(names) - most
    listed = ", ".join(str(name) for name in names[:most])
    return f"{listed} and {rest} more" if rest > 0 else listed
