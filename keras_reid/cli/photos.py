"""Images of commands: photos of one or several persons, and files that do not decode."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from keras_reid import data, detection, visualize
from keras_reid.cli.common import GalleryOptions
from keras_reid.cli.detector import DetectorOptions
from keras_reid.cli.options import option
from keras_reid.cli.terminal import progress
from keras_reid.detection.photos import MODES, CropFolder, person_name
from keras_reid.errors import InputError, counted, name_some, printable
from keras_reid.io import content_digest
from keras_reid.pixels import decode

MAX_UNREADABLE = 0.01  # maximum fraction of the images
MOST_SHOWN = 20  # names in a report


class Persons(NamedTuple):
    """Persons in images.

    Attributes:
        names: (n,) path of the image, or `photo.jpg#2` in a photo of several persons.
        files: (n,) image files of one person each: the image or a crop.
        rows: (n,) row of the image in the searched paths.
    """

    names: np.ndarray
    files: np.ndarray
    rows: np.ndarray

    @property
    def images(self) -> data.PersonImages:
        """Files without identities."""
        return data.PersonImages(self.files, np.zeros(len(self.files), int), None)


@dataclass
class Skipped:
    """Images that a command skipped.

    Attributes:
        total: number of all images.
        unreadable: files that do not decode.
        absent: large photos without a person.
        several: photos of several persons, with the path of the preview.
    """

    total: int = 0
    unreadable: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    several: dict[str, str] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """True if no image was skipped."""
        return not (self.unreadable or self.absent or self.several)

    def finish(self) -> None:
        """Print one report of the skipped images.

        Raises:
            InputError: more than 1 % of the images do not decode.
        """
        if self.absent:
            _warn(f"no person found in {counted(len(self.absent), 'photo')}", self.absent)
        if self.several:
            names = [f"{path} (preview: {preview})" for path, preview in self.several.items()]
            text = f"skipped {counted(len(names), 'photo')} of several persons; --box=N selects one"
            _warn(text, names)
        broken = len(self.unreadable)
        if broken > MAX_UNREADABLE * self.total:
            others = "The others were processed. " if broken < self.total else ""
            raise InputError(
                f"At most {100 * MAX_UNREADABLE:g} % of the images may be unreadable, got "
                f"{broken:,} of {self.total:,}: {_reasons(self.unreadable)}. {others}Replace or "
                "remove these files."
            )
        if broken:
            text = f"skipped {counted(broken, 'unreadable image')}"
            logging.warning("%s: %s", text, _reasons(self.unreadable))


def crop_name(name: str, file: str) -> str:
    """Return a file name for a copy of a person: `photo_2.png` for the crop of `photo.jpg#2`.

    Args:
        name: name of the person in `Persons`.
        file: its file.
    """
    if file == name:
        return Path(name).name
    photo, _, number = name.rpartition("#")
    if photo and number.isdecimal() and not os.path.exists(name):
        return f"{Path(photo).stem}_{number}.png"
    return f"{Path(name).stem}.png"


def _warn(text: str, names: Sequence[str]) -> None:
    logging.warning("%s: %s", text, printable(name_some(names, MOST_SHOWN)))


def _reasons(paths: Sequence[str]) -> str:
    """Return a list of unreadable files, each with its fault."""
    shown = [f"{path} ({data.unfit(path) or 'a damaged image'})" for path in paths[:MOST_SHOWN]]
    return printable(name_some([*shown, *paths[MOST_SHOWN:]], MOST_SHOWN))


class PersonFinder:
    """Finder of the persons in the images of a command.

    Crops are in a temporary folder, which is removed with the finder.

    Args:
        photos: finder of persons in one image.
        box: number of the person to take from photos of several persons; None: all.
        previews: folder for pictures of skipped photos, with numbered boxes.

    Attributes:
        skipped: skipped images of all calls.
    """

    def __init__(
        self, photos: detection.Photos, box: int | None = None, previews: str = "previews"
    ) -> None:
        self.box, self.previews = box, Path(previews)
        self.skipped = Skipped(absent=photos.absent)
        folder = tempfile.mkdtemp(prefix="keras_reid-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.crops = CropFolder(folder, photos)

    def find(self, paths: Sequence[str], one: bool = False) -> Persons:
        """Return the persons in images, and add the other images to `skipped`.

        Args:
            paths: image files.
            one: skip photos of several persons, unless `box` selects one.
        """
        paths = [str(path) for path in paths]
        fit = data.usable(np.array(paths, str), progress("reading images"))
        self.skipped.total += len(paths)
        self.skipped.unreadable += np.array(paths, str)[~fit].tolist()
        report = progress("searching photos")
        names: list[str] = []
        rows: list[int] = []
        for row in np.flatnonzero(fit).tolist():
            found = self._names(paths[row], one)
            names += found
            rows += [row] * len(found)
            report(row + 1, len(paths))
        files = [self.crops.file(name) for name in names]
        return Persons(np.array(names, str), np.array(files, str), np.array(rows, int))

    def require(self, paths: Sequence[str], one: bool = False) -> Persons:
        """Return the result of `find`; raise if it is empty."""
        persons = self.find(paths, one)
        if not len(persons.names):
            self.skipped.finish()
            raise InputError("An image must show one person, or the person of --box, got none.")
        return persons

    def _names(self, path: str, one: bool) -> list[str]:
        """Return the names of the persons to use in an image."""
        boxes = self.crops.boxes(path)
        if boxes is None:
            return [path]
        count = len(boxes)
        if count < 2:
            return [path] * count
        if self.box is not None and self.box <= count:
            return [person_name(path, self.box, count)]
        if one or self.box is not None:  # no such box
            self.skipped.several[path] = self._preview(path, boxes)
            return []
        return [person_name(path, 1 + number, count) for number in range(count)]

    def _preview(self, path: str, boxes: np.ndarray) -> str:
        """Write a picture of a photo with numbered boxes, and return its path."""
        self.previews.mkdir(parents=True, exist_ok=True)
        name = f"{Path(path).stem}-{content_digest(path)[:8]}.jpg"
        visualize.draw_boxes(decode(path), boxes).save(self.previews / name, quality=90)
        return os.path.join(self.previews, name)

    def picture(self, name: str) -> dict[str, Any]:
        """Return entries of a query for `visualize.search_page`: its person, and a cropped photo.

        Args:
            name: a name of `Persons`.
        """
        path, _, number = name.rpartition("#")
        path = path if path and number.isdecimal() and not os.path.exists(name) else name
        boxes = self.crops.boxes(path) if os.path.isfile(path) else None
        entries = {"image": self.crops.file(name), "name": name}
        if boxes is None:
            return entries
        return entries | {"photo": np.asarray(visualize.draw_boxes(decode(path), boxes))}


@dataclass(frozen=True, kw_only=True)
class PhotoOptions(DetectorOptions):
    """Options of commands that take images or photos."""

    detect: str = option(
        "Images in which persons are detected and cropped. auto: height / width below 1.8, or a "
        "shorter side above 400 pixels; a small image without a detection is used as it is.",
        "auto",
        choices=MODES,
        topic="data",
    )
    strict: bool = option(
        "Check of all images before the start; an image that does not decode is an error.",
        False,
        topic="data",
    )

    @cached_property
    def photos(self) -> detection.Photos:
        """Finder of persons in one image."""
        name = Path(self.detector).name if self.detector else "default"
        return detection.Photos(self.detect, self.load_detector, name)

    @cached_property
    def finder(self) -> PersonFinder:
        """Finder of persons in all images of the command."""
        return PersonFinder(self.photos)

    def check_images(self, paths: Sequence[str]) -> None:
        """Raise for images that do not decode, if `strict` is set."""
        if not self.strict:
            return
        fit = data.usable(np.array(paths, str), progress("checking images"))
        broken = np.array(paths, str)[~fit].tolist()
        if broken:
            raise InputError(
                f"With --strict, all images must be readable, got {len(broken):,} unreadable of "
                f"{len(paths):,}: {_reasons(broken)}. Replace or remove these files."
            )


@dataclass(frozen=True, kw_only=True)
class GalleryPhotoOptions(GalleryOptions, PhotoOptions):
    """Options of commands that search for persons in photos, or take one person of each photo."""

    box: int | None = option(
        "Number of the person, from the left, in photos of several persons. Default: query "
        "searches for each person; enrol and verify skip the photo.",
        least=1,
        topic="data",
    )
    previews: str = option(
        "Folder for pictures of skipped photos, with numbered boxes.", "previews", topic="output"
    )

    @cached_property
    def finder(self) -> PersonFinder:
        """Finder of persons in all images of the command."""
        return PersonFinder(self.photos, self.box, self.previews)
