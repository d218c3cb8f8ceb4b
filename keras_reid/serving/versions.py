"""Versions of a served model: numbered folders that appear complete or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.io import locked, new_folder
from keras_reid.names import expanded


def new_version(
    directory: str | os.PathLike[str], version: int | None, write: Callable[[Path], None]
) -> Path:
    """`directory/version`, made by `write(folder)`; it is never replaced.

    Args:
        directory: holds the versions of one model, and is made if it is missing.
        version: from 1; None takes the one after the last.
        write: puts the files into the folder.

    Raises:
        InputError: the version exists, or the folder cannot be made.
    """
    directory = expanded(directory).absolute()
    with locked(directory / ".lock", wait=True):
        # TensorFlow Serving looks at folders whose names are numbers: it sees this one when it is
        # whole.
        place = directory / str(_free(directory, version))
        with new_folder(place) as staged:
            write(staged)
    return place


def _free(directory: Path, version: int | None) -> int:
    """The version to write: the given one, if it is free, or the one after the last."""
    taken = {int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()}
    if version is None:
        return max(taken, default=0) + 1
    checks.at_least(1, version=version)
    if version in taken:
        raise InputError(
            f"a version is never overwritten, but {directory / str(version)} exists: give another "
            f"one or none, which makes it {max(taken) + 1}"
        )
    return version
