"""Pairs of every query and gallery image, for verification and open-set identification."""

from collections.abc import Iterator

import numpy as np

from keras_reid import checks
from keras_reid.evaluation.comparison import Distances, as_rows
from keras_reid.evaluation.labels import Labeled
from keras_reid.evaluation.protocols import Protocol

Trials = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]


def trials(distances: Distances, query: Labeled, gallery: Labeled, protocol: str) -> Trials:
    """Yield blocks of the distances (b, g), and masks of pairs of one person and of junk.

    Junk is one person in one camera, or an unlabeled image.
    """
    checks.one_of(("market1501", "no-camera"), protocol=protocol)
    source = as_rows(distances)
    labels = Protocol(protocol).codes(query, gallery, source.shape)
    for start, rows in source.blocks():
        yield rows, *labels.masks(start, start + len(rows))
