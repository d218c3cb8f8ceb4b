"""Names of persons and cameras in one spelling: Unicode has several for the same letters.

macOS writes é in file names as e and an accent (NFD), keyboards and web forms write one character
(NFC). Names are kept and compared in NFC. Paths are kept as they are, because a path in another
spelling does not open the file on Linux, and are compared in NFC.
"""

import unicodedata

import numpy as np


def normalized(text: str) -> str:
    """Return the text in NFC, the same for all spellings of a name."""
    return unicodedata.normalize("NFC", text)


def normalized_labels(labels: np.ndarray) -> np.ndarray:
    """Return labels (n,) with texts in NFC; numbers stay as they are."""
    if labels.dtype.kind != "U":
        return labels
    return np.array([normalized(label) for label in labels.tolist()], dtype=str)
