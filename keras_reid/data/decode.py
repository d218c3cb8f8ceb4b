"""From file names to pixels, and which files have any."""

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import tensorflow as tf
from absl import logging

from keras_reid import checks
from keras_reid.data.images import PersonImages, name_some
from keras_reid.data.pillow import too_large
from keras_reid.errors import InputError

FEW = 16  # files for which no graph is built
HEAD = 4096  # bytes of a file that say how it is looked at
# A BMP file; a JPEG file whose first segment, or first after JFIF's, is Exif's. \C is a byte.
SPECIAL = r"(BM|\C{6}Exif|\C{24}Exif)\C*"


def decode(path: tf.Tensor) -> tf.Tensor:
    """The file's pixels: JPEG, PNG or BMP to uint8 RGB (h, w, 3); runs eagerly and in a graph.

    A JPEG file that says by an Exif tag that it was taken sideways is turned upright.

    Raises:
        tf.errors.OpError: the file is missing, empty, truncated or not an image.
    """
    return decode_bytes(tf.io.read_file(path))


def decode_bytes(content: tf.Tensor) -> tf.Tensor:
    """`decode` of what a file contains."""
    # decode_image looks at the first bytes, not at the file's suffix, and hands JPEG to the same
    # decoder, with the same fast integer transform, as decode_jpeg.
    decoded = functools.partial(tf.io.decode_image, content, channels=3, expand_animations=False)
    # One look tells nearly all files from those that need more.
    special = tf.strings.regex_full_match(tf.strings.substr(content, 0, 32), SPECIAL)
    image = tf.cond(special, lambda: _special(content, decoded), decoded)
    return tf.ensure_shape(image, (None, None, 3))


def _special(content: tf.Tensor, decoded: Callable[[], tf.Tensor]) -> tf.Tensor:
    """A BMP file, or a JPEG file with an Exif header."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, HEAD), tf.uint8), tf.int32)
    image = tf.cond(_has_palette(head), lambda: _of_palette(content), decoded)
    return upright(image, _orientation(head))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """The image (h, w, 3) as it is looked at, of an Exif orientation from 1 to 8 (CIPA DC-008)."""
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    rows = tf.reduce_any(orientation == (3, 4, 7, 8))
    columns = tf.reduce_any(orientation == (2, 3, 6, 7))
    image = tf.cond(rows, lambda: image[::-1], lambda: image)
    return tf.cond(columns, lambda: image[:, ::-1], lambda: image)


def _orientation(head: tf.Tensor) -> tf.Tensor:
    """What the tag 0x0112 of a JPEG file says; 1, upright, without one."""
    # The tag, the type SHORT, the count 1 and then the value, in either order of bytes.
    little = tf.where(_found(head, b"\x12\x01\x03\x00\x01\x00\x00\x00"))[:1, 0] + 8
    big = tf.where(_found(head, b"\x01\x12\x00\x03\x00\x00\x00\x01"))[:1, 0] + 9
    places = tf.concat([little, big], 0)
    values = tf.gather(head, tf.minimum(places, tf.size(head, tf.int64) - 1))
    value = tf.concat([tf.boolean_mask(values, (values >= 1) & (values <= 8)), [1]], 0)[0]
    return tf.where(head[0] == 0xFF, value, 1)


def _found(head: tf.Tensor, pattern: bytes) -> tf.Tensor:
    """Where the bytes of a pattern begin."""
    count = tf.maximum(0, tf.size(head) - len(pattern) + 1)
    equal = [head[i : i + count] == byte for i, byte in enumerate(pattern)]
    return tf.reduce_all(tf.stack(equal), axis=0)


def _has_palette(head: tf.Tensor) -> tf.Tensor:
    """Whether it is a BMP file of 8 bits a pixel, whose colours are in a table."""
    bmp = tf.reduce_all(head[:2] == (ord("B"), ord("M")))
    return bmp & tf.reduce_all(head[28:30] == (8, 0))


def _of_palette(content: tf.Tensor) -> tf.Tensor:
    """The colours of such a file; `decode_image` takes their numbers for grey."""
    numbers = tf.cast(tf.io.decode_bmp(content)[:, :, 0], tf.int32)
    where = 14 + tf.io.decode_raw(tf.strings.substr(content, 14, 4), tf.int32)[0]
    first = tf.io.decode_raw(tf.strings.substr(content, 10, 4), tf.int32)[0]
    table = tf.io.decode_raw(tf.strings.substr(content, where, first - where), tf.uint8)
    return tf.gather(tf.reshape(table, (-1, 4)), numbers)[:, :, 2::-1]


def _decodes(path: str) -> bool:
    try:
        decode(tf.constant(path))
    except tf.errors.OpError:
        return False
    return True


def decodable(path: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Mask (n,) of the files that decode and are not `too_large`; all are read in parallel.

    `progress` is called with the number of files read and of all.
    """

    @tf.autograph.experimental.do_not_convert
    def survives(index: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The shape goes out with the index because tf.data prunes a decode whose result is unused,
        # a control dependency notwithstanding: every file would pass.
        return index, tf.shape(decode(path))

    mask = np.zeros(len(path), bool)
    places = np.flatnonzero([not too_large(file) for file in path])
    if len(places) <= FEW:
        mask[places] = [_decodes(path[place]) for place in places]
        return mask
    files = tf.data.Dataset.from_tensor_slices((places, path[places]))
    alive = files.map(survives, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    for indices, _ in alive.batch(256).as_numpy_iterator():
        mask[indices] = True
        if progress:
            progress(int(indices[-1]) + 1, len(path))
    if progress:
        progress(len(path), len(path))
    return mask


def readable(
    images: PersonImages,
    max_unreadable: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> PersonImages:
    """The images that decode, which are then `checked`; one warning names those that do not.

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
    mask = decodable(images.path, progress)
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
