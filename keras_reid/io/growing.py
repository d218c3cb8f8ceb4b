"""Files that grow while a command runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from keras_reid.errors import invalid_file
from keras_reid.io.writing import PUBLIC, writing
from keras_reid.names import StrPath, expanded


@contextmanager
def growing_file(path: StrPath, keep: bool = False) -> Iterator[TextIO]:
    """Yield a new text file; each line is in the file as soon as it is written.

    Args:
        path: the file.
        keep: keep the file if the block fails, such as lines of a stream that cannot be repeated.

    Raises:
        InputError: `path` exists, or cannot be written.
    """
    path = expanded(path)
    with writing(path, path.name):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PUBLIC)
        except FileExistsError:
            raise invalid_file(path, "be a new path", "a file", "Choose another path.") from None
        try:
            with open(number, "w", buffering=1, encoding="utf-8", newline="\n") as file:
                yield file
        except BaseException:
            if not keep:
                with suppress(OSError):
                    path.unlink()
            raise
