"""Checks of single image files, without TensorFlow."""

import os

from PIL import Image

from keras_reid.errors import InputError
from keras_reid.names import StrPath
from keras_reid.pixels import decode, missing_decoder, stored_size

LEAST_PIXELS, MOST_PIXELS = 8, 10**8  # minimum of a side; maximum of the image
# Smaller files have fewer than MOST_PIXELS: PNG compresses a byte of 8 pixels to at least 1/1032.
SMALL = MOST_PIXELS // (8 * 1032)


def unfit(path: StrPath) -> str | None:
    """Return a description of a file that cannot show a person, or None; reads only its header."""
    try:
        width, height = stored_size(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | IsADirectoryError)
        return "a missing file" if missing else missing_decoder(path) or "another type of file"
    except Image.DecompressionBombError:
        return f"more than {MOST_PIXELS:,} pixels"
    except Exception as error:  # a broken header
        return f"a broken image, {str(error)[:80]}"
    if min(width, height) < LEAST_PIXELS:
        return f"{height}×{width} pixels, fewer than {LEAST_PIXELS} on a side"
    if width * height > MOST_PIXELS:
        return f"{height:,}×{width:,} pixels, more than {MOST_PIXELS:,}"
    return None


def too_large(path: StrPath) -> bool:
    """Return True for more than `MOST_PIXELS`; most files are too small to be opened."""
    try:
        if os.stat(path).st_size <= SMALL:
            return False
        width, height = stored_size(path)
    except Image.DecompressionBombError:
        return True
    except Exception:  # not an image; its decoder raises
        return False
    return width * height > MOST_PIXELS


def decodes(path: StrPath) -> bool:
    """Return True for an image file that decodes and is not `too_large`."""
    if too_large(path):
        return False
    try:
        decode(path)
    except InputError:
        return False
    return True
