"""Locks between processes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from keras_reid.errors import InputError
from keras_reid.io.writing import writing
from keras_reid.names import StrPath, expanded


class Busy(InputError):
    """Another process holds the lock."""


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
