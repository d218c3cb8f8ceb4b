"""Locks, and atomic writes: files and folders are renamed to their path when complete.

After a kill or on a full disk, the existing file is unchanged. Failed writes raise `InputError`.
"""

import errno
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from secrets import token_hex

from keras_reid.errors import InputError, first_line, invalid_file, name_some
from keras_reid.names import StrPath, expanded

PUBLIC, PRIVATE = 0o666, 0o600  # modes of new files, before the umask
FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
LONGEST_NAME = 50  # characters of at most four bytes; most file systems allow 255 bytes
# Temporary names: .HOST-PROCESS-WRITER-NUMBER-NAME
HOST = hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()
WRITER = token_hex(4)  # identifies this process: process numbers repeat in containers

Publish = Callable[[Path, Path], object]


class Busy(InputError):
    """Error: another process holds the lock."""


def new_file(path: StrPath, overwrite: bool = False) -> AbstractContextManager[Path]:
    """Return a context that yields a temporary path and renames it to `path` at its end.

    Args:
        path: the file.
        overwrite: replace an existing file.

    Raises:
        InputError: `path` exists without `overwrite`, or cannot be written.
    """
    return _staged(path, PUBLIC, os.replace if overwrite else _publish_new)


def replaced_file(path: StrPath, mode: int = PUBLIC) -> AbstractContextManager[Path]:
    """Return a context that yields a temporary path, which replaces the file `path` at its end.

    Raises:
        InputError: `path` cannot be written.
    """
    return _staged(path, mode)


@contextmanager
def new_folder(path: StrPath, replaceable: Sequence[str] = ()) -> Iterator[Path]:
    """Return a context that yields a temporary folder and renames it to `path` at its end.

    Args:
        path: the folder.
        replaceable: patterns of names, such as "person_*". An existing folder is replaced if all
            names in it match, so that a wrong path does not erase other files.

    Raises:
        InputError: `path` exists and is not a folder, has other entries, or cannot be written.
    """
    path = expanded(path)
    check_replaceable(path, replaceable)
    with _staged(path, None, _publish_folder if replaceable else os.replace) as staged:
        yield staged


@contextmanager
def locked(path: StrPath, wait: bool = False) -> Iterator[None]:
    """Hold a lock within the block; the system releases it if the process is killed.

    Args:
        path: lock file, which is removed when the block ends.
        wait: wait for the other process instead of raising `Busy`.

    Raises:
        Busy: another process holds the lock.
        InputError: the file cannot be written.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s, which --help does not need

    path = expanded(path)
    lock = FileLock(path, -1 if wait else 0, thread_local=False)
    with writing(path, path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            text = f"`{path.parent}` must be used by one process at a time, got another."
            raise Busy(f"{text} Wait until it ends.") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows
            path.unlink()  # before the release; since filelock 4.0, a waiting process notices it
        lock.release()


def check_writable(path: StrPath) -> None:
    """Raise `InputError` if a file or folder cannot be created, before the work for it begins."""
    path = expanded(path).absolute()
    folder = next(folder for folder in path.parents if folder.exists())
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        received = f"no permission for {folder}"
        raise invalid_file(path, "be writable", received, "Choose another path.")


def check_replaceable(path: StrPath, replaceable: Sequence[str] = ()) -> None:
    """Raise `InputError` for a path that `new_folder` with these patterns does not write to."""
    path = expanded(path)
    with writing(path, path.name):
        if not path.exists():
            return
        entries = [entry.name for entry in path.iterdir()] if path.is_dir() else ["a file"]
    others = [name for name in entries if not any(fnmatch(name, one) for one in replaceable)]
    if others and replaceable:
        rule = f"be a new or empty folder, or have only {', '.join(replaceable)}"
        raise invalid_file(path, rule, name_some(others), "Choose another path.")
    if others:
        raise invalid_file(path, "be a new or empty folder", "other files", "Choose another path.")


def check_room(path: StrPath, size: int) -> None:
    """Raise `InputError` if the disk is too full for `size` bytes; HDF5 would end the process."""
    path = expanded(path)
    with writing(path, path.name):
        if shutil.disk_usage(path.absolute().parent).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def drop_leftovers(path: Path) -> None:
    """Remove the temporary files that killed processes of this host left for `path`."""
    name = re.escape(path.name[-LONGEST_NAME:])
    for left in path.parent.iterdir():
        owner = re.fullmatch(rf"\.{HOST}-(\d+)-(\w+)-\w+-{name}", left.name)
        if owner and owner[2] != WRITER and not _is_running(int(owner[1])):
            _remove(left)


def _is_running(process: int) -> bool:
    """Return whether another process has this number."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except OSError as error:  # PermissionError: the process of another user
        return not isinstance(error, ProcessLookupError)
    return process != os.getpid()


@contextmanager
def _staged(path: StrPath, mode: int | None, publish: Publish = os.replace) -> Iterator[Path]:
    """Yield a new file, or a new folder if `mode` is None, and publish it."""
    path = expanded(path)
    name = f".{HOST}-{os.getpid()}-{WRITER}-{token_hex(4)}-{path.name[-LONGEST_NAME:]}"
    staged = path.with_name(name)
    with writing(path, name):
        path.parent.mkdir(parents=True, exist_ok=True)
        drop_leftovers(path)
        try:
            if mode is None:
                staged.mkdir()
                yield staged
            else:
                staged.touch(mode, exist_ok=False)
                yield staged
                with staged.open("rb") as written:
                    os.fsync(written.fileno())
            publish(staged, path)
        finally:
            _remove(staged)


def _publish_new(staged: Path, path: Path) -> None:
    try:
        os.link(staged, path)
    except OSError:  # the path exists, or the file system has no hard links
        if os.path.lexists(path):
            raise invalid_file(path, "be a new path", "a file", "Choose another path.") from None
        os.replace(staged, path)


def _publish_folder(staged: Path, path: Path) -> None:
    """Rename the folder; an existing one gets a temporary name, and is removed at the end."""
    if not path.exists():
        os.replace(staged, path)
        return
    old = staged.with_name(f"{staged.name[:-1]}~")
    os.replace(path, old)
    try:
        os.replace(staged, path)
    except OSError:
        os.replace(old, path)
        raise
    _remove(old)


@contextmanager
def writing(path: Path, name: str) -> Iterator[None]:
    """Convert errors of the file system; `name` is that of the file which is written."""
    try:
        yield
    except Exception as error:
        # h5py and TensorFlow raise other exceptions with the text of the system.
        full = [text for text in FULL if text in str(error)]
        if not (full or isinstance(error, OSError)):
            raise
        other = getattr(error, "filename", None)
        place = f" for {other}" if other and name not in str(other) else ""
        reason = full[0] if full else first_line(error)
        fix = "Choose another path or free disk space; existing files are unchanged."
        raise invalid_file(path, "be writable", f"'{reason}'{place}", fix) from error


def _remove(staged: Path) -> None:
    if staged.is_dir():
        shutil.rmtree(staged, ignore_errors=True)
    else:
        with suppress(OSError):
            staged.unlink()
