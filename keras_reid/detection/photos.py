"""Photos of scenes, and crops of the persons in them."""

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
from absl import logging
from PIL import Image

from keras_reid import checks
from keras_reid.detection.loading import Detector, detector_of
from keras_reid.errors import InputError
from keras_reid.io import content_digest, new_folder
from keras_reid.names import StrPath, expanded
from keras_reid.pixels import decode, upright_size

MIN_ASPECT = 1.8  # height / width; images of one person are higher
MAX_SIDE = 400  # pixels of the shorter side; images of one person are smaller
MIN_SCORE = 0.5
MIN_PIXELS = 8  # of a side of a crop
BOXES = "boxes.npy"
MODES = ("auto", "always", "never")


class Photos:
    """Finder of persons in image files.

    Args:
        mode: "auto" runs the detector in photos, see `is_photo`; "always" in all images; "never".
        detector: function without arguments that returns a detector. It is called once, on the
            first use. None: `detector_of`.
        name: name of the detector, which folders of crops store.

    Attributes:
        absent: searched photos without a person, of all folders of crops.

    Raises:
        InputError: an unknown mode.
    """

    def __init__(
        self,
        mode: str = "auto",
        detector: Callable[[], Detector] | None = None,
        name: str = "default",
    ) -> None:
        checks.one_of(MODES, detect=mode)
        self.mode, self.name = mode, name
        self._load = detector or detector_of
        self.absent: list[str] = []

    @cached_property
    def detector(self) -> Detector:
        """The loaded detector."""
        return self._load()

    @cached_property
    def _is_installed(self) -> bool:
        """False if there is no detector; the mode "auto" uses small images without it."""
        try:
            return bool(self.detector)
        except InputError as error:
            logging.warning("persons in small images are not detected: %s", error)
            return False

    def searched(self, path: StrPath) -> bool:
        """Return whether the detector runs in an image."""
        return self.mode == "always" or (self.mode == "auto" and is_photo(path))

    def boxes(self, path: StrPath) -> np.ndarray | None:
        """Return the boxes (n, 4) of persons as x, y, w, h in pixels, from left to right.

        None means that the image is used as it is: the detector does not run in it, or it is small
        and without a detection in the mode "auto".

        Raises:
            InputError: an image that does not decode, or no detector.
        """
        if not self.searched(path):
            return None
        if not self._is_installed:
            if self.keeps(path):
                return None
            self._load()  # raises
        boxes = person_boxes(decode(path), self.detector)
        return None if not len(boxes) and self.keeps(path) else boxes

    def keeps(self, path: StrPath) -> bool:
        """Return whether an image without a detection is used as it is."""
        return self.mode == "auto" and not is_large(path)


def is_photo(path: StrPath) -> bool:
    """Return whether an image may show a scene: height / width < 1.8, or a side above 400 pixels.

    The shorter side is compared with 400 pixels.
    """
    width, height = upright_size(path)
    return height / width < MIN_ASPECT or min(width, height) > MAX_SIDE


def is_large(path: StrPath) -> bool:
    """Return whether the shorter side of an image exceeds 400 pixels."""
    return min(upright_size(path)) > MAX_SIDE


def person_boxes(image: np.ndarray, detector: Detector) -> np.ndarray:
    """Return the boxes (n, 4) of persons as x, y, w, h in whole pixels, from left to right.

    Args:
        image: uint8 RGB (h, w, 3).
        detector: function of an image, see `keras_reid.detection.detector_of`. Scores below 0.5 and
            boxes of fewer than 8 pixels on a side are left out.
    """
    boxes, scores = detector(image)
    boxes = np.asarray(boxes, float).reshape(-1, 4)[np.asarray(scores) >= MIN_SCORE]
    size = np.array(image.shape[1::-1])
    start = np.clip(np.rint(boxes[:, :2]), 0, size)
    end = np.clip(np.rint(boxes[:, :2] + boxes[:, 2:]), 0, size)
    boxes = np.concatenate([start, end - start], axis=1).astype(int)
    boxes = boxes[boxes[:, 2:].min(axis=1, initial=MIN_PIXELS) >= MIN_PIXELS]
    return boxes[np.argsort(boxes[:, 0] + boxes[:, 2] / 2, kind="stable")]


def cropped(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return the part of an image (h, w, 3) inside a box (x, y, w, h) of whole pixels."""
    x, y, w, h = (int(value) for value in box)
    return image[y : y + h, x : x + w]


def person_name(path: str, number: int, count: int) -> str:
    """Return the name of a person in a photo: `photo.jpg#2`, or the path if it shows one person.

    Args:
        path: photo.
        number: number of the person, from 1.
        count: number of persons in the photo.
    """
    return path if count == 1 else f"{path}#{number}"


class CropFolder:
    """Crops in a folder: `DIGEST/1.png`, `DIGEST/2.png`, … by the digest of the photo's content.

    Photos with the same content are searched once.

    Args:
        folder: folder, which may be missing.
        photos: finder of persons; None: only existing crops are read.
    """

    def __init__(self, folder: StrPath, photos: Photos | None = None) -> None:
        self.folder, self.photos = expanded(folder), photos

    def boxes(self, path: str) -> np.ndarray | None:
        """Return the boxes of an image, see `Photos.boxes`, and write the crops if they are new.

        Raises:
            InputError: as in `Photos.boxes`, or the folder cannot be written.
        """
        if self.photos is None or not self.photos.searched(path):
            return None
        place = self.folder / content_digest(path)
        if not place.is_dir():
            try:
                self._write(path, place)
            except InputError:
                if not place.is_dir():  # another process may have written it
                    raise
        boxes = np.load(place / BOXES)
        if not len(boxes):
            if self.photos.keeps(path):
                return None
            self.photos.absent.append(path)
        return boxes

    def _write(self, path: str, place: Path) -> None:
        boxes = self.photos.boxes(path) if self.photos else None
        with new_folder(place) as staged:
            np.save(staged / BOXES, np.zeros((0, 4), int) if boxes is None else boxes)
            image = decode(path)
            for number, box in enumerate(() if boxes is None else boxes, start=1):
                # The lowest compression, because crops are soon read again.
                picture = Image.fromarray(cropped(image, box))
                picture.save(staged / f"{number}.png", compress_level=1)

    def names(self, path: str) -> list[str]:
        """Return the names of the persons in an image; an image used as it is has its path.

        Raises:
            InputError: as in `boxes`.
        """
        boxes = self.boxes(path)
        if boxes is None:
            return [path]
        return [person_name(path, 1 + number, len(boxes)) for number in range(len(boxes))]

    def file(self, name: str) -> str:
        """Return the file with the pixels of a name: a crop, or the image itself."""
        if not self.folder.is_dir():
            return name
        photo, _, number = name.rpartition("#")
        if number.isdecimal() and photo and not os.path.exists(name):
            return str(self.folder / content_digest(photo) / f"{number}.png")
        crop = self.folder / content_digest(name) / "1.png"
        return str(crop) if crop.is_file() else name
