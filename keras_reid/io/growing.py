"""Files that grow while a command runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from keras_reid.errors import invalid_file
from keras_reid.io.writing import PUBLIC, writing
from keras_reid.names import StrPath, expanded


@contextmanager
def growing_file(path: StrPath, keep: bool = False, overwrite: bool = False) -> Iterator[TextIO]:
    """Yield a new text file; each line is in the file as soon as it is written.

    Args:
        path: the file.
        keep: keep the file if the block fails, such as lines of a stream that cannot be repeated.
        overwrite: replace an existing file.

    Raises:
        InputError: `path` exists and `overwrite` is not set, or it cannot be written.
    """
    path = expanded(path)
    existing = os.O_TRUNC if overwrite else os.O_EXCL
    with writing(path, path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            number = os.open(path, os.O_WRONLY | os.O_CREAT | existing, PUBLIC)
        except FileExistsError:
            raise invalid_file(
                path, "be a new path", "a file", "Choose another path, or set `overwrite`."
            ) from None
        try:
            with open(number, "w", buffering=1, encoding="utf-8", newline="\n") as file:
                yield file
        except BaseException:
            if not keep:
                with suppress(OSError):
                    path.unlink()
            raise
