"""Pixels of image files: decoding, orientation and resizing.

`decode` and `resize`, by Pillow, are the reference. The graph functions, by TensorFlow, return the
same pixels to one gray level; TensorFlow is imported when one of them is called.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from keras_reid.errors import InputError, first_line

if TYPE_CHECKING:
    import tensorflow as tf

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
END_OF_PNG = b"IEND\xaeB`\x82"  # with its checksum
BY_PILLOW = 0  # in place of an orientation: TensorFlow does not decode the file, or differently
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

ORIENTATION, SHORT, LONG = 0x0112, 3, 4  # the tag of Exif and its types
ENTRY = 12  # bytes of an entry of an IFD
BGR_MASKS = struct.pack("<3I", 0xFF0000, 0xFF00, 0xFF)  # of red, green and blue in a BMP file
DEEPEST = 40  # bytes of the BMP header that has bits and compression, BITMAPINFOHEADER

Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image


def decode(source: Source) -> np.ndarray:
    """Decode an image, or the first frame of one, to upright RGB without alpha, uint8 (h, w, 3).

    Of 16 bits per channel the high byte is kept.

    Args:
        source: path, content or open file of an image, or a PIL image, which is not changed.

    Raises:
        InputError: the file is not a JPEG, PNG, BMP, GIF, WebP or TIFF image, or damaged, or has
            more than 16 bits per channel.
    """
    try:
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=FORMATS) as image:
            return _upright_rgb(image)
    except Exception as error:  # Pillow raises many types for damaged files
        raise _refusal(source, error) from error


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (h, w, 3) to `size` bilinearly, with antialiasing where it shrinks."""
    if pixels.shape[:2] == tuple(size):
        return pixels
    # In float, because Pillow rounds integers after each of the two directions.
    planes = (Image.fromarray(plane) for plane in np.moveaxis(pixels, 2, 0).astype(np.float32))
    bilinear = Image.Resampling.BILINEAR
    resized = [np.asarray(plane.resize(size[::-1], bilinear)) for plane in planes]
    return np.rint(np.stack(resized, axis=-1)).astype(np.uint8)


def _upright_rgb(image: Image.Image) -> np.ndarray:
    _load(image)
    # The orientation is read after the pixels: Pillow turns TIFF upright as it loads them.
    turn = UPRIGHT.get(_exif_orientation(image))
    rgb = _rgb(image)
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


def _load(image: Image.Image) -> None:
    """Decode the pixels through the open file.

    By its name, Pillow maps an uncompressed TIFF file into memory, with height and width exchanged
    if the orientation is 5 to 8.
    """
    name = getattr(image, "filename", "")
    image.filename = ""  # type: ignore[attr-defined]
    try:
        image.load()
    finally:
        image.filename = name  # type: ignore[attr-defined]


def _exif_orientation(image: Image.Image) -> int:
    """The orientation, 1 to 8; 1 without a valid one."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata of intact pixels
        return 1
    return int(value) if value in UPRIGHT else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError("32 bits per channel")
    if "transparency" in image.info:  # a color key, which would be searched in the pixels
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _refusal(source: Source, error: Exception) -> InputError:
    if isinstance(source, Image.Image):
        name = getattr(source, "filename", "") or f"a PIL image of mode {source.mode}"
    else:
        name = source if isinstance(source, str | os.PathLike) else "the content of a file"
    return InputError(
        "`image` must be an intact JPEG, PNG, BMP, GIF, WebP or TIFF file of 8 or 16 bits per "
        f"channel, got {name} ({first_line(error)[:120]}). Convert or remove it."
    )


def graph_orientation(path: str | os.PathLike[str]) -> int:
    """Exif orientation, 1 to 8, of a file that a graph decodes without Python; else `BY_PILLOW`.

    Raises:
        InputError: the file is not an image of a format that `decode` decodes.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO"):  # MPO: several JPEG images in one file
                # Pillow inverts all CMYK, TensorFlow only files with a segment of Adobe.
                return BY_PILLOW if image.mode == "CMYK" else _exif_orientation(image)
            if image.format != "PNG":
                return BY_PILLOW
            return _exif_orientation(image) if _intact(Path(path).read_bytes()) else BY_PILLOW
    except Exception as error:
        raise _refusal(path, error) from error


def _intact(png: bytes) -> bool:
    """Verify the checksums of a PNG file; TensorFlow refuses others."""
    try:
        with Image.open(io.BytesIO(png), formats=FORMATS) as image:
            image.verify()
    except Exception:
        return False
    return END_OF_PNG in png  # which Pillow does not verify


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image after it is turned upright."""
    with Image.open(path, formats=FORMATS) as image:
        if image.format == "TIFF":  # which Pillow turns upright as it loads the pixels
            _load(image)
        return image.size[::-1] if _exif_orientation(image) >= 5 else image.size


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height as stored, from the header alone."""
    with warnings.catch_warnings():  # Pillow warns of large images, which are refused here
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            return image.size


# --- In graphs


def graph_decode(content: tf.Tensor, orientation: tf.Tensor | int = BY_PILLOW) -> tf.Tensor:
    """`decode` for the content of a file in a graph of this process.

    Args:
        content: of a JPEG, PNG, BMP, GIF, WebP or TIFF file.
        orientation: of `graph_orientation`; `BY_PILLOW` calls Pillow.

    Raises:
        tf.errors.OpError: the file is damaged or not an image.
    """
    import tensorflow as tf

    def by_pillow() -> tf.Tensor:
        # Stateless, for the state of an iterator over a stateful function cannot be saved.
        return tf.numpy_function(decode, [content], tf.uint8, stateful=False)

    image = tf.cond(
        tf.equal(orientation, BY_PILLOW),
        by_pillow,
        lambda: graph_decode_upright(content, orientation),
    )
    return tf.ensure_shape(image, (None, None, 3))


def graph_decode_upright(content: tf.Tensor, orientation: tf.Tensor | int) -> tf.Tensor:
    """Decode JPEG and PNG without Python, and turn them by their Exif orientation from 1 to 8.

    The orientations are those of CIPA DC-008.
    """
    import tensorflow as tf

    # The default transform differs from Pillow's by up to 5 gray levels. The operation decodes
    # PNG, too.
    image = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
    orientation = tf.convert_to_tensor(orientation)
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    rows = tf.reduce_any(orientation == (3, 4, 7, 8))
    columns = tf.reduce_any(orientation == (2, 3, 6, 7))
    image = tf.cond(rows, lambda: image[::-1], lambda: image)
    return tf.cond(columns, lambda: image[:, ::-1], lambda: image)


def graph_resize(image: tf.Tensor, size: tuple[int, int]) -> tf.Tensor:
    """`resize` in a graph, of uint8 (h, w, 3)."""
    import tensorflow as tf

    def resized(antialias: bool) -> tf.Tensor:
        pixels = tf.image.resize(image, size, antialias=antialias)
        return tf.saturate_cast(tf.round(pixels), tf.uint8)

    def of_another_size() -> tf.Tensor:
        # Both agree on growing images, where plain bilinear takes half the time.
        return tf.cond(tf.reduce_any(shape > size), lambda: resized(True), lambda: resized(False))

    shape = tf.shape(image)[:2]
    image = tf.cond(tf.reduce_all(shape == size), lambda: image, of_another_size)
    return tf.ensure_shape(image, (*size, 3))


def graph_decode_portable(content: tf.Tensor) -> tf.Tensor:
    """`decode` for the content of a file in a graph without Python, which leaves this process.

    Limits, next to `decode`:

    - TIFF, animated WebP without alpha, and BMP of other than 8, 24 or 32 bits per pixel or with
      other channel masks than those of BGR are refused.
    - WebP needs TensorFlow 2.21 on the server. CMYK JPEG without a segment of Adobe is not
      inverted.
    - Only JPEG is turned upright: by the tag in IFD0, of type SHORT or LONG, of an Exif segment
      among the application segments and comments at the beginning of the file.

    Raises:
        tf.errors.InvalidArgumentError: another format, or a damaged file.
    """
    import tensorflow as tf

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
    """The orientation in the first Exif segment of a JPEG file, 1 without one."""
    import tensorflow as tf

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
    """The orientation in the TIFF structure that begins at a byte, 1 without one."""
    import tensorflow as tf

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
    import tensorflow as tf

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
    # TensorFlow refuses bytes behind the pixels, which some programs write.
    end = tf.cast(offset, tf.int64) + row * tf.abs(tf.cast(height, tf.int64))
    content = tf.strings.substr(content, tf.constant(0, tf.int64), end)

    def of_palette() -> tf.Tensor:
        # `decode_image` takes the numbers of colors for gray.
        numbers = tf.cast(tf.io.decode_bmp(content)[:, :, 0], tf.int32)
        begin = 14 + header
        table = tf.reshape(_numbers(content, begin, offset - begin), (-1, 4))
        return tf.cast(tf.gather(table, numbers)[:, :, 2::-1], tf.uint8)

    return tf.cond(
        bits == 8,
        of_palette,
        lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
    )


def _supported(condition: tf.Tensor, received: tf.Tensor | str) -> tf.Operation:
    import tensorflow as tf

    rule = "image_bytes must be JPEG, PNG, GIF, WebP or BMP of 8, 24 or 32 bits per pixel, got "
    return tf.debugging.Assert(condition, [tf.strings.join([rule, received, ". Convert it."])])


def _numbers(
    content: tf.Tensor, at: tf.Tensor | int, count: tf.Tensor | int, dtype: str = "uint8"
) -> tf.Tensor:
    """Little-endian integers of `count` bytes, as int32."""
    import tensorflow as tf

    return tf.cast(tf.io.decode_raw(tf.strings.substr(content, at, count), dtype), tf.int32)
