"""Best crops of each track, as image files."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from keras_reid import checks
from keras_reid.data.frames import cut
from keras_reid.detection.suppression import overlaps
from keras_reid.io import new_file
from keras_reid.names import StrPath, expanded
from keras_reid.tracking.pipeline import FrameTracks

SPACING = 10  # frames; two crops of a track are at least so far apart
BETTER = 1.1  # ratio of the qualities of a crop and of the one that it replaces


class Crop(NamedTuple):
    """Crop of a track in a file, with its quality."""

    quality: float
    frame: int
    path: Path


class BestCrops:
    """Folder with the best crops of each track, `FOLDER/TRACK/FRAME.jpg`, up to date at any time.

    The quality is `confidence · area · (1 − overlap)`; overlap is the largest IoU with another
    person. Of each 10 consecutive frames, counted from 0, a track has at most one crop.

    Args:
        folder: folder of the crops.
        count: maximum number of crops of each track.
    """

    def __init__(self, folder: StrPath, count: int = 3) -> None:
        checks.at_least(1, count=count)
        self.folder, self.count = expanded(folder), count
        self._crops: dict[int, list[Crop]] = {}
        self._ended: list[int] = []

    def add(self, frame: FrameTracks) -> None:
        """Write crops of the frame that are better than those so far.

        Raises:
            InputError: the folder cannot be written.
        """
        for number in self._ended:
            self._crops.pop(number, None)
        if frame.image is not None and frame.active:
            boxes = np.stack([track.box for _, track in frame.active])
            overlap = overlaps(boxes, frame.boxes)
            for i, (number, track) in enumerate(frame.active):
                overlap[i, track.detection] = 0
                image = cut(frame.image, track.box)
                if image is not None:
                    confidence = float(frame.confidence[track.detection])
                    quality = confidence * image.shape[0] * image.shape[1]
                    self._offer(number, frame.number, image, quality * (1 - overlap[i].max()))
        self._ended = frame.ended

    def best(self, track: int) -> Path | None:
        """Return the best crop of a track that did not end before the last frame, if it has one."""
        return max(self._crops[track]).path if self._crops.get(track) else None

    def _offer(self, track: int, frame: int, image: np.ndarray, quality: float) -> None:
        kept = self._crops.setdefault(track, [])
        near = [crop for crop in kept if crop.frame // SPACING == frame // SPACING]
        worse = near or (kept if len(kept) == self.count else [])
        if worse and quality < BETTER * min(worse).quality:
            return
        path = self.folder / f"{track:06d}" / f"{frame:08d}.jpg"
        with new_file(path) as file:
            Image.fromarray(image).save(file, "JPEG", quality=95)
        kept.append(Crop(quality, frame, path))
        if worse:
            old = min(worse)
            kept.remove(old)
            old.path.unlink(missing_ok=True)
