"""What verification and open-set identification compare: every query with every gallery image."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.comparison import Compared, as_rows
from keras_reid.evaluation.labels import NOBODY, Codes, Labelled, codes

Blocks = Iterator[tuple[int, np.ndarray]]


class Trials(NamedTuple):
    """The labels of both sides, and blocks of rows with their start."""

    labels: Codes
    blocks: Blocks

    def same(self, start: int, stop: int) -> np.ndarray:
        """Mask (stop - start, g): one person."""
        return self.labels.query[start:stop, None] == self.labels.gallery

    def junk(self, start: int, stop: int) -> np.ndarray:
        """Mask (stop - start, g): one person in one camera, or nobody known."""
        here = self.labels.query_camera[start:stop, None] == self.labels.gallery_camera
        return (self.same(start, stop) & here) | (self.labels.gallery == NOBODY)


def trials(compared: Compared, query: Labelled, gallery: Labelled, protocol: str) -> Trials:
    """The trials of these arguments, which are those of `pairs` and `open_set`."""
    if protocol not in ("market1501", "no-camera"):
        raise InputError(
            f"thresholds are judged by the protocol market1501 or no-camera: received {protocol!r}"
        )
    source = as_rows(compared)
    return Trials(codes(query, gallery, source.shape, protocol == "no-camera"), source.blocks())
