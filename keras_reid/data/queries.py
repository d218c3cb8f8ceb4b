"""Query images and checks of their files."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from keras_reid.data.files import decodes, unfit
from keras_reid.data.images import PersonImages
from keras_reid.errors import invalid_file

FEW = 16  # files that are read without a report of the progress
Progress = Callable[[int, int | None], None]


def usable(paths: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """Return a mask (n,) of the files that are images of a usable size.

    Args:
        paths: (n,) files.
        progress: called with the numbers of processed and of all files.
    """
    fit = np.zeros(len(paths), bool)
    with ThreadPoolExecutor() as pool:
        for row, intact in enumerate(pool.map(_usable, paths.tolist())):
            fit[row] = intact
            if progress and len(paths) > FEW:
                progress(row + 1, len(paths))
    return fit


def _usable(path: str) -> bool:
    return unfit(path) is None and decodes(path)


def query_images(
    paths: Sequence[str], names: Sequence[str] | None = None, progress: Progress | None = None
) -> PersonImages:
    """Return the images at these paths.

    Args:
        paths: files.
        names: shown in errors instead of the paths.
        progress: called with the numbers of processed and of all images.

    Raises:
        InputError: a file is not an image of a usable size.
    """
    for path, name, fit in zip(
        paths, names or paths, usable(np.array(paths), progress), strict=True
    ):
        if not fit:
            reason = unfit(path) or "a damaged image"
            raise invalid_file(name, "be an image of a person", reason, "Choose another image.")
    return PersonImages(np.array(paths), np.full(len(paths), "query"), None)
