"""What verification and open-set identification compare: every query with every gallery image."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.features import Features, scaled_rows
from keras_reid.evaluation.labels import NOBODY, Labels, camera_codes, identity_codes


class Trials(NamedTuple):
    """Codes of identities and cameras, equal where these are, and blocks of rows with their start.

    By "no-camera" no query is of a gallery image's camera.
    """

    query: np.ndarray
    gallery: np.ndarray
    query_cam: np.ndarray
    gallery_cam: np.ndarray
    blocks: Iterator[tuple[int, np.ndarray]]

    def junk(self, start: int, stop: int) -> np.ndarray:
        """Mask (stop - start, g): one person in one camera, or nobody known."""
        same = self.query[start:stop, None] == self.gallery
        here = self.query_cam[start:stop, None] == self.gallery_cam
        return (same & here) | (self.gallery == NOBODY)


def trials(
    distances: np.ndarray | tuple[Features, Features],
    query_ids: Labels,
    gallery_ids: Labels,
    query_cams: Labels | None,
    gallery_cams: Labels | None,
    distance: str | None,
    protocol: str,
) -> Trials:
    """The trials of these arguments, which are those of `pairs` and `open_set`."""
    if protocol not in ("market1501", "no-camera"):
        raise InputError(
            f"thresholds are judged by the protocol market1501 or no-camera: received {protocol!r}"
        )
    shape, blocks = scaled_rows(distances, distance)
    identities = identity_codes(query_ids, gallery_ids, shape)
    ignored = protocol == "no-camera"
    cameras, _ = camera_codes(query_cams, gallery_cams, shape, protocol, ignored)
    return Trials(*identities, *cameras, blocks)
