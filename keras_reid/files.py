"""Files and folders that are there as a whole or not at all.

Each is written under another name beside its place, which begins with a dot, and then renamed:
whenever the process is killed or the disk is full, what was there before is there still.
"""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from keras_reid.errors import InputError

LONGEST_NAME = 200  # most file systems take 255 bytes


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write to; the file takes its own when the block ends, and never another's place.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    with _beside(Path(path)) as partial:
        yield partial
        _sync(partial)
        try:
            os.link(partial, path)  # which fails where a file exists
        except FileExistsError:
            raise _exists(path) from None
        except OSError:  # a file system without links
            if os.path.lexists(path):
                raise _exists(path) from None
            os.replace(partial, path)


@contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A name to write to; the file takes the place of `path` when the block ends.

    Raises:
        InputError: it cannot be written.
    """
    with _beside(Path(path)) as partial:
        yield partial
        _sync(partial)
        os.replace(partial, path)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends.

    Raises:
        InputError: it exists and holds something, or cannot be written.
    """
    with _beside(Path(path)) as partial:
        partial.mkdir()
        yield partial
        os.replace(partial, path)  # which fails where there is a folder that holds something


def make_private(path: Path) -> None:
    """Makes a file that its owner alone can read, unless it is there already."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o600))


def drop_leftovers(path: Path) -> None:
    """Removes what killed processes left of `replaced_file(path)`; nobody else is writing it."""
    for file in path.parent.glob(f".{'[0-9a-f]' * 8}-{glob.escape(path.name[-LONGEST_NAME:])}"):
        file.unlink(missing_ok=True)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A free name beside the path, of the same ending, of which nothing is left afterwards."""
    name = path.name[-LONGEST_NAME:]
    partial = path.with_name(f".{token_hex(4)}-{name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        other = error.filename and partial.name not in str(error.filename)
        where = f" of {error.filename}" if other else ""
        raise InputError(
            f"writing {path} gave '{error.strerror or error}'{where}: name another place, or make "
            "room; what was there is unchanged"
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            with suppress(OSError):  # there may be no such folder
                partial.unlink()


def _exists(path: str | os.PathLike[str]) -> InputError:
    return InputError(f"{path} exists, and nothing is written over: name a new one")


def _sync(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
