"""Image files by Pillow: as pictures, and what their headers say."""

import os
import warnings

from PIL import Image, ImageOps

from keras_reid.errors import InputError

LEAST_PIXELS, MOST_PIXELS = 8, 10**8  # of a side; of the whole image
# A file below has fewer than MOST_PIXELS: PNG packs a byte of 8 pixels into no less than 1/1032.
SMALL = MOST_PIXELS // (8 * 1032)


def opened(path: str | os.PathLike[str]) -> Image.Image:
    """The file's pixels as `decode` has them, as a picture of Pillow: RGB, and upright.

    Raises:
        InputError: the file is no image that Pillow reads.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(
            f"an image is a JPEG, PNG or BMP file: reading {path} gave '{str(error)[:120]}'; leave "
            "it out"
        ) from error


def unfit(path: str | os.PathLike[str]) -> str | None:
    """Why no person can be seen in a file, or None if one might; its header alone is read."""
    try:
        width, height = _size(path)
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
        width, height = _size(path)
    except Image.DecompressionBombError:
        return True
    except Exception:  # no image, which its decoder says
        return False
    return width * height > MOST_PIXELS


def _size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height, of the header alone."""
    with warnings.catch_warnings():  # Pillow warns of large images, which are refused here
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return image.size
