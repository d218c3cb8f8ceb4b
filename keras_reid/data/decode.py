"""Pixels of image files, and a check of files before they are used.

`pillow.opened` is the reference. TensorFlow decodes JPEG and intact PNG files to the same pixels
without Python; Pillow decodes all other files.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf
from absl import logging

from keras_reid import checks
from keras_reid.data.images import ORIENTATION, PersonImages, name_some
from keras_reid.data.pillow import BY_PILLOW, opened, orientation, too_large
from keras_reid.errors import InputError, counted

FEW = 16  # files for which no graph is built
UNREADABLE = -1  # in place of an orientation


def decode(path: tf.Tensor, orientation: tf.Tensor | None = None) -> tf.Tensor:
    """Decode an image file to upright uint8 RGB (h, w, 3), as `pillow.opened` does.

    Runs eagerly and in a graph.

    Args:
        path: of a JPEG, PNG, BMP, GIF, WebP or TIFF file.
        orientation: int32, of the column "exif_orientation"; None: Pillow reads it from the file.

    Raises:
        InputError, or tf.errors.OpError in a graph: the file is missing, damaged or not an image.
    """
    return decode_content(tf.io.read_file(path), orientation)


def decode_content(content: tf.Tensor, orientation: tf.Tensor | None = None) -> tf.Tensor:
    """`decode` for the bytes of a file."""
    if orientation is None:
        orientation = _orientation(content)
    image = tf.cond(
        tf.equal(orientation, BY_PILLOW),
        lambda: _by_pillow(content),
        lambda: decode_upright(content, orientation),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_upright(content: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """`decode_content` for JPEG and PNG, without Python: for graphs that leave this process."""
    # The default transform differs from Pillow's by up to 5 gray levels. The operation decodes
    # PNG, too.
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    return upright(image, orientation)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn an image (h, w, 3) by its Exif orientation from 1 to 8 (CIPA DC-008)."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    rows = tf.reduce_any(orientation == (3, 4, 7, 8))
    columns = tf.reduce_any(orientation == (2, 3, 6, 7))
    image = tf.cond(rows, lambda: image[::-1], lambda: image)
    return tf.cond(columns, lambda: image[:, ::-1], lambda: image)


def _orientation(content: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(_call(orientation, content, tf.int32), ())


def _by_pillow(content: tf.Tensor) -> tf.Tensor:
    return _call(opened, content, tf.uint8)


def _call(read: Callable[[BinaryIO], Any], content: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Call a function of Pillow on the content of a file, eagerly or in a graph."""

    def call(content: bytes) -> np.ndarray:
        return np.asarray(read(io.BytesIO(content)), dtype.as_numpy_dtype)

    if tf.executing_eagerly():
        return tf.constant(call(content.numpy()))
    # Stateless, for the state of an iterator over a stateful function cannot be saved.
    return tf.numpy_function(call, [content], dtype, stateful=False)


def orientations(
    path: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Exif orientation (n,) of each file, 1 to 8, for the column "exif_orientation".

    `BY_PILLOW` marks files that only Pillow decodes. `UNREADABLE` marks files that are missing,
    damaged or `too_large`. Files are decoded in parallel. `progress` is called with the number of
    files read and of all.
    """
    # Headers are read in this thread: several threads, which wait for Python, take twice as long.
    turns = np.array([_turn(file) for file in path.tolist()], np.int32)
    places = np.flatnonzero(turns != UNREADABLE)
    read = np.full(len(path), UNREADABLE, np.int32)
    for indices in _decoded(path[places], turns[places]):
        rows = places[indices]
        read[rows] = turns[rows]
        if progress and len(places) > FEW:
            progress(int(rows[-1]) + 1, len(path))
    if progress and len(places) > FEW:
        progress(len(path), len(path))
    return read


def _turn(path: str) -> int:
    if too_large(path):
        return UNREADABLE
    try:
        return orientation(path)
    except InputError:
        return UNREADABLE


def _decoded(path: np.ndarray, turns: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of the files that decode, some at a time."""

    @tf.autograph.experimental.do_not_convert
    def look(index: tf.Tensor, path: tf.Tensor, turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The shape is returned because tf.data prunes a decode without it, a control dependency
        # notwithstanding: every file would pass.
        return index, tf.shape(decode(path, turn))

    index = np.arange(len(path))
    if len(path) <= FEW:
        for row in index:
            with contextlib.suppress(tf.errors.OpError, InputError):
                look(row, tf.constant(path[row]), tf.constant(turns[row]))
                yield index[row : row + 1]
        return
    files = tf.data.Dataset.from_tensor_slices((index, path, turns))
    alive = files.map(look, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    for indices, _ in alive.batch(256).as_numpy_iterator():
        yield indices


def decodable(path: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Mask (n,) of the files that decode and are not `too_large`; see `orientations`."""
    return orientations(path, progress) != UNREADABLE


def readable(
    images: PersonImages,
    max_unreadable: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> PersonImages:
    """The images that decode, with a column "exif_orientation"; a warning names the others.

    Args:
        images: n images.
        max_unreadable: the largest fraction of them, 0 to 1, that may be unreadable.
        progress: called with the number of images read and of all.

    Raises:
        InputError: more than `max_unreadable` of the images are unreadable, or all of them.
    """
    hint = "the fraction of the images that may be unreadable"
    checks.within("[0, 1]", hint, max_unreadable=max_unreadable)
    if images.checked:
        return images
    turns = orientations(images.path, progress)
    images, mask = images.with_columns(**{ORIENTATION: turns}), turns != UNREADABLE
    if mask.all():
        return images
    broken = images.path[~mask].tolist()
    if len(broken) > max_unreadable * len(images) or not mask.any():
        raise InputError(
            f"at most {max_unreadable:.2%} of the images may be unreadable, but {len(broken)} of "
            f"{len(images)} are: restore or remove {name_some(broken)}"
        )
    logging.warning("skipping %s: %s", counted(len(broken), "unreadable image"), ", ".join(broken))
    return images[mask]
