"""Query images: files that must be images of a usable size."""

from collections.abc import Callable, Sequence

import numpy as np

from keras_reid.data.images import PersonImages
from keras_reid.data.validation import decodable, unfit
from keras_reid.errors import InputError

Progress = Callable[[int, int | None], None]


def usable(paths: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """Mask (n,) of the files that are images of a usable size."""
    fit = np.array([unfit(path) is None for path in paths], bool)
    fit[fit] = decodable(paths[fit], progress)
    return fit


def query_images(
    paths: Sequence[str], names: Sequence[str] | None = None, progress: Progress | None = None
) -> PersonImages:
    """Return the images at these paths.

    Args:
        paths: files.
        names: shown in errors instead of the paths.
        progress: called with the number of images read and of all.

    Raises:
        InputError: a file is not an image of a usable size.
    """
    fit = usable(np.array(paths), progress)
    for path, name, good in zip(paths, names or paths, fit, strict=True):
        if not good:
            raise InputError(
                f"a query must be an image of a person: {name} {unfit(path) or 'cannot be decoded'}"
            )
    return PersonImages(np.array(paths), np.full(len(paths), "query"), None)
