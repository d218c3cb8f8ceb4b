"""Files and folders that are there as a whole or not at all.

Each is written under another name beside its place, which begins with a dot, and then renamed:
whenever the process is killed or the disk is full, what was there before is there still. What a
killed process left is removed when the same file is written next: its name tells whose it was.
"""

import errno
import glob
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import Any

from keras_reid.errors import InputError, printable
from keras_reid.names import expanded

try:
    import fcntl
except ImportError:  # Windows, where two at once are not told apart
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_NAME = 50  # characters, of four bytes at most, where most file systems take 255 bytes
HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
OURS: set[str] = set()  # names that are being written by this process
RUNS = re.compile("([^0-9]*)([0-9]*)")  # of a name: text, then digits
PUBLIC, PRIVATE = 0o666, 0o600  # of which the umask takes away


class Busy(InputError):
    """Another process is at work."""


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write; it takes its name when the block ends, and never another's place.

    Raises:
        InputError: the file exists, or cannot be written.
    """
    path = expanded(path)
    with _beside(path, PUBLIC) as partial:
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
def replaced_file(path: str | os.PathLike[str], mode: int = PUBLIC) -> Iterator[Path]:
    """A file to write; it takes the place of `path` when the block ends.

    Raises:
        InputError: it cannot be written.
    """
    path = expanded(path)
    with _beside(path, mode) as partial:
        yield partial
        _sync(partial)
        os.replace(partial, path)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block ends.

    Raises:
        InputError: it exists and holds something, or cannot be written.
    """
    path = expanded(path)
    with _beside(path, None) as partial:
        yield partial
        os.replace(partial, path)  # which fails where there is a folder that holds something


@contextmanager
def locked(path: str | os.PathLike[str], rule: str, wait: bool = False) -> Iterator[None]:
    """One process at a time in the block; a lock goes with the process that held it.

    Args:
        path: of the lock, a file that is there meanwhile.
        rule: what is said to whoever comes second.
        wait: until the first is done, instead.

    Raises:
        Busy: another process is in it.
        InputError: the file cannot be written.
    """
    path = expanded(path)
    while True:
        with _told(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR, PUBLIC)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
            os.close(descriptor)  # of a lock that was removed meanwhile
        except BlockingIOError:
            os.close(descriptor)
            raise Busy(f"{rule}: {path.parent} is in use by another process") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def make_private(path: Path) -> None:
    """Makes a file that its owner alone can read, unless it is there already."""
    os.close(os.open(path, os.O_CREAT | os.O_RDONLY, PRIVATE))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuses a place that cannot be written, before there is anything to write.

    Raises:
        InputError: what the system said.
    """
    path = expanded(path).absolute()
    if printable(str(path)) != str(path):
        raise InputError(
            f"files are written under names in UTF-8 without control characters: received "
            f"{str(path)!r}; name another"
        )
    with _told(path):
        with suppress(FileNotFoundError):
            path.lstat()  # which fails for a name that is too long
        there = next(folder for folder in path.parents if folder.exists())
        with _made(_partial(there / path.name), PUBLIC):
            pass


def check_room(path: str | os.PathLike[str], size: int) -> None:
    """Refuses a file of so many bytes for which its disk has no room.

    For libraries that end the process where they cannot write on, as HDF5 does.

    Raises:
        InputError: how much there is.
    """
    path = expanded(path)
    with _told(path):
        free = shutil.disk_usage(path.absolute().parent).free
        if free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def drop_leftovers(path: Path) -> None:
    """Removes what killed processes left of files and folders that would have been `path`."""
    for partial in path.parent.glob(f".{HOST}-*-{glob.escape(path.name[-LONGEST_NAME:])}"):
        writer = re.match(rf"\.{HOST}-(\d+)-", partial.name)
        if writer and partial.name not in OURS and not _lives(int(writer[1])):
            _remove(partial)


def _lives(process: int) -> bool:
    """Whether another process of that number is there."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return process != os.getpid()


@contextmanager
def _beside(path: Path, mode: int | None) -> Iterator[Path]:
    """A file (or, without a mode, a folder) of the same ending beside the path, gone afterwards."""
    partial = _partial(path)
    with _told(path, partial):
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_leftovers(path)
        with _made(partial, mode):
            yield partial


def _partial(path: Path) -> Path:
    """A free name, which says who writes it."""
    return path.with_name(f".{HOST}-{os.getpid()}-{token_hex(4)}-{path.name[-LONGEST_NAME:]}")


@contextmanager
def _made(partial: Path, mode: int | None) -> Iterator[None]:
    OURS.add(partial.name)
    try:
        if mode is None:
            partial.mkdir()
        else:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL, mode))
        yield
    finally:
        _remove(partial)
        OURS.discard(partial.name)


def _remove(partial: Path) -> None:
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        with suppress(OSError):  # there may be no such folder
            partial.unlink()


@contextmanager
def _told(path: Path, partial: Path | None = None) -> Iterator[None]:
    """One sentence where the system refuses."""
    where = ""
    cause: Exception
    try:
        yield
    except OSError as error:
        own = partial.name if partial else path.name
        other = error.filename and own not in str(error.filename)
        where = f" of {error.filename}" if other else ""
        what, cause = error.strerror or str(error), error
    except Exception as error:  # of a library that writes by itself
        found = [os.strerror(number) for number in FULL if os.strerror(number) in str(error)]
        if not found:
            raise
        what, cause = found[0], error
    else:
        return
    raise InputError(
        f"writing {path} gave '{what}'{where}: name another place, or make room; what was there "
        "is unchanged"
    ) from cause


def natural(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Sort key of natural order: runs of digits compare as numbers, so that `2.png` < `10.png`.

    Zero-padded names keep the order of text. Paths compare folder by folder.
    """
    text = os.fspath(path)
    names = (RUNS.findall(name) for name in re.split(r"[\\/]", text))
    # With "0" for its digits, a run compares with other characters as text does.
    runs = [[(part + "0", int(n)) if n else (part, -1) for part, n in name] for name in names]
    return runs, text


def _exists(path: str | os.PathLike[str]) -> InputError:
    return InputError(f"{path} exists, and nothing is written over: name a new one")


def _sync(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())
