"""Pairs of every query and gallery image, for verification and open-set identification."""

from collections.abc import Iterator

import numpy as np

from keras_reid import checks
from keras_reid.evaluation.comparison import Compared, as_rows
from keras_reid.evaluation.labels import NOBODY, Labeled, codes

Trials = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]


def trials(compared: Compared, query: Labeled, gallery: Labeled, protocol: str) -> Trials:
    """Yield blocks of the distances (b, g), and masks of pairs of one person and of junk.

    Junk is one person in one camera, or an unlabeled image.
    """
    checks.one_of(("market1501", "no-camera"), "only these judge thresholds", protocol=protocol)
    source = as_rows(compared)
    labels = codes(query, gallery, source.shape, protocol == "no-camera")
    for start, rows in source.blocks():
        part = slice(start, start + len(rows))
        same = labels.query[part, None] == labels.gallery
        here = labels.query_camera[part, None] == labels.gallery_camera
        yield rows, same, (same & here) | (labels.gallery == NOBODY)
