"""Names of persons, cameras and files in one Unicode form.

Unicode has several forms of the same letters. macOS writes é in file names as e and an accent
(NFD), keyboards and web forms write one character (NFC). Names are kept and compared in NFC. Paths
are kept as they are, because a path in another form does not open the file on Linux, and are
compared in NFC. Links and `..` in the path of a folder are resolved.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

StrPath = str | os.PathLike[str]
RUNS = re.compile("([^0-9]*)([0-9]*)")  # characters, then digits


def normalized(text: str) -> str:
    """Return the text in NFC, the same for all Unicode forms of a name."""
    return unicodedata.normalize("NFC", text)


def normalized_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels (n,) with texts in NFC; numbers stay as they are."""
    if labels.dtype.kind != "U":
        return labels
    return np.array([normalized(label) for label in labels.tolist()], dtype=str)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading `~` or `~user` replaced by the home folder.

    Shells replace `~` only at the beginning of a word. A name such as `~draft.csv` is kept;
    `Path.expanduser` would raise an error.
    """
    return Path(os.path.expanduser(path))


def resolved(path: str | os.PathLike[str]) -> str:
    """Return the absolute path of a file in its real folder, the same by all paths to the folder.

    A link to a file is kept: data tools link many names to one file in their cache.
    """
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def one_image(reference: str, spelling: str) -> bool:
    """Return whether two Unicode forms of a reference mean one image: they are not two files."""
    try:
        return os.path.samefile(reference, spelling)
    except OSError:  # one of them is not a file
        return True


def repeated(paths: Iterable[str]) -> str | None:
    """Return a path that occurs twice, also in two Unicode forms, or None."""
    spellings: dict[str, list[str]] = {}
    for path in paths:
        others = spellings.setdefault(normalized(path), [])
        if any(other == path or one_image(other, path) for other in others):
            return path
        others.append(path)
    return None


def natural(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """Return a sort key for natural order: `2.png` precedes `10.png`.

    Zero-padded names keep the order of text. Paths compare folder by folder.

    Example:
        >>> sorted(["10.png", "2.png", "1.png"], key=natural)
        ['1.png', '2.png', '10.png']
    """
    text = os.fspath(path)
    names = (RUNS.findall(name) for name in re.split(r"[\\/]", text))
    # With "0" for its digits, a run compares with other characters as text does.
    runs = [[(part + "0", int(n)) if n else (part, -1) for part, n in name] for name in names]
    return runs, text
