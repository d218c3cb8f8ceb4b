"""Decoding of image files by Pillow, and their headers."""

import io
import os
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

from keras_reid.errors import InputError, first_line

LEAST_PIXELS, MOST_PIXELS = 8, 10**8  # of a side; of the whole image
# A file below has fewer than MOST_PIXELS: PNG packs a byte of 8 pixels into no less than 1/1032.
SMALL = MOST_PIXELS // (8 * 1032)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
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

File = str | os.PathLike[str] | BinaryIO


def opened(file: File) -> Image.Image:
    """Decode an image file, or the first frame of one, to an upright RGB image without alpha.

    `decode` returns the same pixels; those of JPEG differ by at most one gray level. Of 16 bits per
    channel the high byte is kept.

    Raises:
        InputError: the file is not a JPEG, PNG, BMP, GIF, WebP or TIFF image, or damaged, or has
            more than 16 bits per channel.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            return _upright_rgb(image)
    except Exception as error:  # Pillow raises many types for damaged files
        raise _refusal(file, error) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image as `opened` converts a file, without a change of the image.

    Raises:
        InputError: the image does not decode, or has more than 16 bits per channel.
    """
    try:
        return _upright_rgb(image)
    except Exception as error:
        name = getattr(image, "filename", "") or f"a PIL image of mode {image.mode}"
        raise _refusal(name, error) from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    _load(image)
    # The orientation is read after the pixels: Pillow turns TIFF upright as it loads them.
    turn = UPRIGHT.get(_exif_orientation(image))
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _load(image: Image.Image) -> None:
    """Decode the pixels through the open file.

    By its name, Pillow maps an uncompressed TIFF file into memory, with height and width exchanged
    if the orientation is 5 to 8.
    """
    name = getattr(image, "filename", "")
    if not name:
        image.load()
        return
    image.filename = ""  # type: ignore[attr-defined]
    try:
        image.load()
    finally:
        image.filename = name  # type: ignore[attr-defined]


def orientation(file: File) -> int:
    """Exif orientation, 1 to 8, of a file that TensorFlow decodes as Pillow; else `BY_PILLOW`.

    Raises:
        InputError: the file is not an image of a format that `opened` decodes.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.format in ("JPEG", "MPO"):  # MPO: several JPEG images in one file
                # Pillow inverts all CMYK, TensorFlow only files with a segment of Adobe.
                return BY_PILLOW if image.mode == "CMYK" else _exif_orientation(image)
            if image.format != "PNG":
                return BY_PILLOW
            return _exif_orientation(image) if _intact(file) else BY_PILLOW
    except Exception as error:
        raise _refusal(file, error) from error


def upright_size(file: File) -> tuple[int, int]:
    """Width and height of an image after it is turned upright."""
    with Image.open(file, formats=FORMATS) as image:
        if image.format == "TIFF":  # which Pillow turns upright as it loads the pixels
            _load(image)
        return image.size[::-1] if _exif_orientation(image) >= 5 else image.size


def _exif_orientation(image: Image.Image) -> int:
    """The orientation, 1 to 8; 1 without a valid one."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata of intact pixels
        return 1
    return int(value) if value in UPRIGHT else 1


def _intact(file: File) -> bool:
    """Verify the checksums of a PNG file; TensorFlow refuses others."""
    if isinstance(file, str | os.PathLike):
        content = Path(file).read_bytes()
    else:
        file.seek(0)
        content = file.read()
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            image.verify()
    except Exception:
        return False
    return END_OF_PNG in content  # which Pillow does not verify


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError("32 bits per channel")
    if "transparency" in image.info:  # a color key, which would be searched in the pixels
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _refusal(file: File, error: Exception) -> InputError:
    name = os.fspath(file) if isinstance(file, str | os.PathLike) else "the content of a file"
    return InputError(
        "`image` must be an intact JPEG, PNG, BMP, GIF, WebP or TIFF file of 8 or 16 bits per "
        f"channel, got {name} ({first_line(error)[:120]}). Convert or remove it."
    )


def unfit(path: str | os.PathLike[str]) -> str | None:
    """Why no person can be seen in a file, or None if one might; its header alone is read."""
    try:
        width, height = _stored_size(path)
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


def too_large(path: str | os.PathLike[str]) -> bool:
    """Whether an image has more than `MOST_PIXELS`; most files are too small to look into."""
    try:
        if os.stat(path).st_size <= SMALL:
            return False
        width, height = _stored_size(path)
    except Image.DecompressionBombError:
        return True
    except Exception:  # no image, which its decoder says
        return False
    return width * height > MOST_PIXELS


def _stored_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height as stored, from the header alone."""
    with warnings.catch_warnings():  # Pillow warns of large images, which are refused here
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as image:
            return image.size
