"""Versions of a served model: numbered folders that are written atomically."""

from collections.abc import Callable
from pathlib import Path

from keras_reid import checks
from keras_reid.errors import invalid
from keras_reid.inference.metadata import FILE
from keras_reid.io import locked, new_folder
from keras_reid.names import StrPath, expanded

# Names in the folder of a version, of all formats.
CONTENTS = (FILE, "saved_model.pb", "fingerprint.pb", "variables", "assets*", "model.*")


def new_version(
    directory: StrPath,
    version: int | None,
    write: Callable[[Path], None],
    overwrite: bool = False,
) -> Path:
    """Create the folder `directory/version` by `write(folder)` and return its path.

    Args:
        directory: folder of all versions of one model; it is created if missing.
        version: number from 1; None: the number after the last one.
        write: writes the files into a folder.
        overwrite: replace an existing version.

    Raises:
        InputError: the version exists without `overwrite`, or the folder cannot be created.
    """
    directory = expanded(directory).absolute()
    with locked(directory / ".lock", wait=True):
        numbers = {int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()}
        following = max(numbers, default=0) + 1
        version = following if version is None else version
        checks.at_least(1, version=version)
        if version in numbers and not overwrite:
            fix = f"Omit it to write {following}, or set `overwrite`."
            raise invalid("version", f"new in {directory}", version, fix)
        # TensorFlow Serving reads folders with numeric names. A complete folder is renamed to one.
        path = directory / str(version)
        with new_folder(path, CONTENTS if overwrite else ()) as staged:
            write(staged)
    return path
