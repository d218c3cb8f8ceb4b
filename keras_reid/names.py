"""Names of persons, cameras and files in one spelling.

Unicode has several spellings of the same letters. macOS writes é in file names as e and an accent
(NFD), keyboards and web forms write one character (NFC). Names are kept and compared in NFC. Paths
are kept as they are, because a path in another spelling does not open the file on Linux, and are
compared in NFC.
"""

import os
import unicodedata
from pathlib import Path

import numpy as np


def normalized(text: str) -> str:
    """Return the text in NFC, the same for all spellings of a name."""
    return unicodedata.normalize("NFC", text)


def normalized_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels (n,) with texts in NFC; numbers stay as they are."""
    if labels.dtype.kind != "U":
        return labels
    return np.array([normalized(label) for label in labels.tolist()], dtype=str)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading `~` or `~user` replaced by the home folder.

    Shells do not replace the `~` of `--out=~/x`. A name such as `~draft.csv` is kept;
    `Path.expanduser` would raise an error.
    """
    return Path(os.path.expanduser(path))
