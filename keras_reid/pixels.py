"""Pixels of image files: decoding, orientation and resizing.

`decode` and `resize` use Pillow. The graph functions use TensorFlow and return the same pixels to
one gray level. TensorFlow is imported on use.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image

from keras_reid.errors import Shown, first_line, invalid

if TYPE_CHECKING:
    import tensorflow as tf

# Suffixes of the formats that Pillow reads, with those of HEIC, which needs pillow-heif.
HEIF = (".heic", ".heics", ".heif", ".heifs", ".hif")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff", ".gif"),
    *(".bmp", ".dib", *HEIF, ".avif", ".avifs", ".jp2", ".j2c", ".j2k", ".jpc", ".jpf", ".jpx"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".qoi", ".tga", ".icb", ".vda", ".vst", ".psd"),
    *(".blp", ".bw", ".cur", ".dcx", ".dds", ".fit", ".fits", ".flc", ".fli", ".ftc", ".ftu"),
    *(".gbr", ".icns", ".ico", ".iim", ".im", ".msp", ".pcd", ".pcx", ".pxr", ".ras", ".rgb"),
    *(".rgba", ".sgi", ".xbm", ".xpm"),
)
# Formats that Pillow recognizes, but reads by other programs or not at all.
UNREADABLE_FORMATS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
END_OF_PNG = b"IEND\xaeB`\x82"  # with its checksum
BY_PILLOW = 0  # instead of an orientation: TensorFlow decodes the file differently, or not
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that the installed packages read, the usual ones first."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return tuple(name for name in Image.ID if name not in UNREADABLE_FORMATS)


def missing_decoder(path: str | os.PathLike[str]) -> str | None:
    """Return a description of a HEIC or AVIF file that the installed packages do not read."""
    suffix = Path(path).suffix.lower()
    for suffixes, name in ((HEIF, "HEIF"), ((".avif", ".avifs"), "AVIF")):
        if suffix in suffixes and name not in _formats():
            return f"a file that needs pip install '.[heif]' ({name})"
    return None


def decode(source: Source) -> np.ndarray:
    """Decode an image, or its first frame, to upright RGB without alpha, uint8 (h, w, 3).

    Of 16 bits per channel, the high byte is used.

    Args:
        source: path, content or open file of an image, or a PIL image, which is not changed.

    Raises:
        InputError: the file is not an image in a format that Pillow reads, or damaged, or has
            more than 16 bits per channel.
    """
    with _decoding(source):
        if isinstance(source, Image.Image):
            return _upright_rgb(source)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file, formats=_formats()) as image:
            return _upright_rgb(image)


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize uint8 (h, w, 3) bilinearly, with antialiasing along axes that shrink.

    Args:
        pixels: uint8 (h, w, 3).
        size: new (height, width) in pixels.

    Example:
        >>> resize(np.full((4, 4, 3), 9, np.uint8), (2, 1))[..., 0].tolist()
        [[9], [9]]
    """
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
    """Decode the pixels without the name of the file.

    With the name, Pillow maps uncompressed TIFF files into memory, and exchanges height and width
    for orientations 5 to 8.
    """
    name = getattr(image, "filename", "")
    image.filename = ""  # type: ignore[attr-defined]
    try:
        image.load()
    finally:
        image.filename = name  # type: ignore[attr-defined]


def _exif_orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8; 1 if there is no valid one."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata of intact pixels
        return 1
    return int(value) if value in UPRIGHT else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("32 bits per channel")
    if "transparency" in image.info:  # a color key, which Pillow would search in the pixels
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


@contextmanager
def _decoding(source: Source) -> Iterator[None]:
    """Convert the errors of Pillow, which raises many types for damaged files."""
    try:
        yield
    except Exception as error:
        if isinstance(source, Image.Image):
            name = getattr(source, "filename", "") or f"a PIL image of mode {source.mode}"
        else:
            name = source if isinstance(source, str | os.PathLike) else "the content of a file"
        rule = "an intact image file of 8 or 16 bits per channel"
        received = Shown(f"{name} ({first_line(error)[:120]})")
        raise invalid("image", rule, received, "Convert or remove it.") from error


def graph_orientation(path: str | os.PathLike[str]) -> int:
    """Return the Exif orientation, 1 to 8, if a graph can decode the file; else `BY_PILLOW`.

    Raises:
        InputError: the file is not an image of a format that `decode` decodes.
    """
    with _decoding(path), Image.open(path, formats=_formats()) as image:
        if image.format in ("JPEG", "MPO"):  # MPO: several JPEG images in one file
            # Pillow inverts all CMYK, TensorFlow only files with a segment of Adobe.
            return BY_PILLOW if image.mode == "CMYK" else _exif_orientation(image)
        if image.format != "PNG":
            return BY_PILLOW
        return _exif_orientation(image) if _intact(Path(path).read_bytes()) else BY_PILLOW


def _intact(png: bytes) -> bool:
    """Return whether the checksums of a PNG file are valid, as TensorFlow requires."""
    try:
        with Image.open(io.BytesIO(png), formats=_formats()) as image:
            image.verify()
    except Exception:
        return False
    return END_OF_PNG in png  # which Pillow does not verify


def upright_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return width and height of the upright image.

    Raises:
        InputError: the file is not an image, or a damaged TIFF file.
    """
    with _decoding(path), Image.open(path, formats=_formats()) as image:
        if image.format == "TIFF":  # which Pillow turns upright as it loads the pixels
            _load(image)
        return image.size[::-1] if _exif_orientation(image) >= 5 else image.size


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return width and height in the header."""
    with warnings.catch_warnings():  # Pillow warns of large images
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_formats()) as image:
            return image.size


def graph_decode(content: tf.Tensor, orientation: tf.Tensor | int = BY_PILLOW) -> tf.Tensor:
    """`decode` for the content of a file in a graph of this process.

    Args:
        content: content of an image file.
        orientation: result of `graph_orientation`; `BY_PILLOW` calls Pillow.

    Raises:
        tf.errors.OpError: the file is damaged or not an image.
    """
    import tensorflow as tf

    def by_pillow() -> tf.Tensor:
        # Checkpoints do not contain iterators over stateful functions.
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
