"""Decoding of image files in exported graphs, which run without Python."""

import struct
from collections.abc import Callable

import tensorflow as tf

from keras_reid.pixels import graph_decode_upright

ORIENTATION, SHORT, LONG = 0x0112, 3, 4  # the tag of Exif and its types
ENTRY = 12  # bytes of an entry of an IFD
BGR_MASKS = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)  # red, green, blue in a BMP file
DEEPEST = 40  # bytes of the BMP header that has bits and compression, BITMAPINFOHEADER


def graph_decode_portable(content: tf.Tensor) -> tf.Tensor:
    """Decode the content of a file like `keras_reid.pixels.decode`, in a graph without Python.

    Differences from `decode`:

    - TIFF, animated WebP without alpha, and BMP of other than 8, 24 or 32 bits per pixel or with
      channel masks other than BGR are rejected.
    - WebP requires TensorFlow 2.21 on the server. CMYK JPEG without an Adobe segment is not
      inverted.
    - Only JPEG is turned upright, by the tag in IFD0, of type SHORT or LONG, of an Exif segment
      among the application segments and comments at the beginning of the file.

    Raises:
        tf.errors.InvalidArgumentError: another format, or a damaged file.
    """

    def jpeg() -> tf.Tensor:
        # Most files have quantization tables right after JFIF, and the walk takes about 0.5 ms.
        plain = tf.strings.substr(tf.strings.substr(content, 0, 22), -2, 2) == b"\xff\xdb"
        turn = tf.cond(plain, lambda: 1, lambda: _orientation_in_segments(content))
        return graph_decode_upright(content, turn)

    def other() -> tf.Tensor:
        tiff = tf.reduce_any(tf.strings.substr(content, 0, 4) == (b"II*\0", b"MM\0*"))
        with tf.control_dependencies([_supported(~tiff, "TIFF")]):
            return tf.io.decode_image(content, channels=3, expand_animations=False)

    begin = tf.strings.substr(content, 0, 2)
    image = tf.cond(
        begin == b"\xff\xd8",
        jpeg,
        lambda: tf.cond(begin == b"BM", lambda: _bmp(content), other),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _orientation_in_segments(content: tf.Tensor) -> tf.Tensor:
    """Return the orientation in the first Exif segment of a JPEG file; 1 if it has no segment."""
    length = tf.strings.length(content)

    def is_exif(at: tf.Tensor) -> tf.Tensor:
        return tf.strings.substr(content, at + 4, 6) == b"Exif\0\0"

    def other_segment(at: tf.Tensor) -> tf.Tensor:
        marker = _numbers(content, at, 2)
        # Application segments and comments come first, with 0xFF between them as padding.
        leads = (marker[1] >= 0xE0) & (marker[1] != 0xFD)
        return (marker[0] == 0xFF) & leads & ~is_exif(at)

    def next_segment(at: tf.Tensor) -> tuple[tf.Tensor]:
        head = _numbers(content, at, 4)
        size = 2 + 256 * head[2] + head[3]
        return (at + tf.where(head[1] == 0xFF, 1, size),)  # the byte 0xFF may be repeated

    def within(at: tf.Tensor, test: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        return tf.cond(at + 10 <= length, lambda: test(at), lambda: False)

    (at,) = tf.while_loop(lambda at: within(at, other_segment), next_segment, (tf.constant(2),))
    return tf.cond(within(at, is_exif), lambda: _orientation_in_ifd0(content, at + 10), lambda: 1)


def _orientation_in_ifd0(content: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """Return the orientation in the TIFF structure at a byte; 1 if it has no orientation."""
    block = _numbers(content, at, tf.strings.length(content) - at)
    size = tf.size(block, tf.int64)
    block = tf.pad(block, [(0, ENTRY)])  # so that a truncated one has all fields
    big_endian = block[0] == ord("M")

    def number(field: tf.Tensor, count: int) -> tf.Tensor:
        powers = [256**i for i in range(count)]
        weights = tf.where(big_endian, powers[::-1], powers)
        return tf.reduce_sum(tf.cast(field, tf.int64) * tf.cast(weights, tf.int64), axis=-1)

    begin = 2 + tf.minimum(number(block[4:8], 4), size)
    entries = block[begin : begin + ENTRY * number(block[begin - 2 : begin], 2)]
    entries = tf.reshape(entries[: tf.size(entries) // ENTRY * ENTRY], (-1, ENTRY))
    tag, kind = number(entries[:, :2], 2), number(entries[:, 2:4], 2)
    value = tf.where(kind == SHORT, number(entries[:, 8:10], 2), number(entries[:, 8:], 4))
    valid = (tag == ORIENTATION) & ((kind == SHORT) | (kind == LONG)) & (value >= 1) & (value <= 8)
    return tf.cast(tf.concat([tf.boolean_mask(value, valid), [1]], 0)[0], tf.int32)


def _bmp(content: tf.Tensor) -> tf.Tensor:
    length = tf.strings.length(content)
    with tf.control_dependencies([_supported(length >= 14 + DEEPEST, "a truncated BMP")]):
        offset, header, width, height = tf.unstack(_numbers(content, 10, 16, "int32"), num=4)
        bits = _numbers(content, 28, 2, "int16")[0]
        compression = _numbers(content, 30, 4, "int32")[0]
    decodes = (header >= DEEPEST) & tf.reduce_any(bits == (8, 24, 32))
    # TensorFlow ignores the masks of compression 3, which follow the first 40 bytes of the header.
    bgr = tf.strings.substr(content, 14 + DEEPEST, len(BGR_MASKS)) == BGR_MASKS
    decodes &= (compression == 0) | ((compression == 3) & bgr)
    # Positions are checked: the errors of tf.strings.substr contain bytes that are not text.
    decodes &= (header <= offset - 14) & (offset <= length) & (width > 0)
    name = tf.strings.format("BMP of {} bits per pixel, compression {}", (bits, compression))
    masks = tf.where((compression == 3) & ~bgr, " and other channel masks than those of BGR", "")
    with tf.control_dependencies([_supported(decodes, tf.strings.join([name, masks]))]):
        row = (tf.cast(width, tf.int64) * tf.cast(bits, tf.int64) + 31) // 32 * 4
    # TensorFlow rejects bytes after the pixels, which some programs write.
    end = tf.cast(offset, tf.int64) + row * tf.abs(tf.cast(height, tf.int64))
    content = tf.strings.substr(content, tf.constant(0, tf.int64), end)
    return tf.cond(
        bits == 8,
        lambda: _bmp_of_palette(content, 14 + header, offset),
        lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
    )


def _bmp_of_palette(content: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Decode a BMP with a table of colors between two bytes.

    `decode_image` returns the numbers of colors as gray.
    """
    numbers = tf.cast(tf.io.decode_bmp(content)[:, :, 0], tf.int32)
    table = tf.reshape(_numbers(content, begin, end - begin), (-1, 4))
    return tf.cast(tf.gather(table, numbers)[:, :, 2::-1], tf.uint8)


def _supported(condition: tf.Tensor, received: tf.Tensor | str) -> tf.Operation:
    rule = "image_bytes must be JPEG, PNG, GIF, WebP or BMP of 8, 24 or 32 bits per pixel, got "
    return tf.debugging.Assert(condition, [tf.strings.join([rule, received, ". Convert it."])])


def _numbers(
    content: tf.Tensor, at: tf.Tensor | int, count: tf.Tensor | int, dtype: str = "uint8"
) -> tf.Tensor:
    """Return little-endian integers of `count` bytes as int32."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(content, at, count), dtype), tf.int32)
