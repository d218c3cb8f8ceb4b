"""Listing of the images of a table, a folder or a pattern."""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_reid import data
from keras_reid.data.readers.layouts import is_image
from keras_reid.detection.photos import CropFolder
from keras_reid.errors import invalid, invalid_file, printable
from keras_reid.io import read_table, table_path
from keras_reid.names import StrPath, expanded, normalized, repeated, resolved

LABELS = ("identity", "camera")


class ImageEntry(NamedTuple):
    """Image file with its identity and camera in Unicode NFC, or None."""

    path: str
    identity: str | None = None
    camera: str | None = None


def listed(images: StrPath | Iterable[str]) -> Iterator[ImageEntry]:
    """Yield the images with absolute paths; links in the paths of folders are resolved.

    Args:
        images: a CSV table with a column path, relative to the table, and optionally identity and
            camera; a folder, with all folders in it; a pattern such as `"crops/**/*.jpg"`; or
            paths.

    Raises:
        InputError: a table without the column or with an image twice; an unreadable folder.
    """
    if not isinstance(images, str | os.PathLike):
        return (_entry(os.path.expanduser(path)) for path in images)
    source = expanded(images)
    if source.suffix.lower() == ".csv":
        check_once(source, (image.path for image in _of_table(source)))
        return _of_table(source)
    if source.is_dir():
        return (_entry(file) for file in data.walk_images(source))
    return (_entry(file) for file in _matching(str(source)))


def listed_persons(images: Iterable[ImageEntry], crops: CropFolder) -> Iterator[ImageEntry]:
    """Yield an entry for each person of photos, and the other images unchanged.

    Files that do not decode are yielded too; they have no embedding.
    """
    for image in images:
        decodes = data.usable(np.array([image.path])).all()
        names = crops.names(image.path) if decodes else [image.path]
        yield from (image._replace(path=name) for name in names)


def check_once(source: Path, paths: Iterable[str]) -> None:
    """Raise if a list of images has a file twice."""
    twice = repeated(paths)
    if twice is not None:
        raise invalid_file(source, "list each image once", f"{twice} twice", "Remove one.")


def _entry(file: StrPath, *labels: str | None) -> ImageEntry:
    path = resolved(file)
    if printable(path) != path:
        rule = "names in UTF-8 without control characters"
        raise invalid("images", rule, path, "Rename the file.")
    return ImageEntry(path, *(None if label is None else normalized(label) for label in labels))


def _matching(pattern: str) -> Iterator[Path | str]:
    """Yield the images that match a pattern; below `**` as `walk_images` lists them."""
    parts = Path(pattern).parts
    if "**" in parts:  # glob would follow links in circles
        folders = glob.glob(str(Path(*parts[: parts.index("**")])))
        return data.walk_images(*map(Path, folders), only=lambda path: _match(path.parts, parts))
    return (file for file in glob.iglob(pattern) if is_image(file) and not os.path.isdir(file))


def _match(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a pattern with `**`."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and _match(parts, pattern[1:]):
        return True
    if not parts or not (pattern[0] == "**" or fnmatch(parts[0], pattern[0])):
        return False
    return _match(parts[1:], pattern if pattern[0] == "**" else pattern[1:])


def _of_table(table: Path) -> Iterator[ImageEntry]:
    for line in read_table(table, ["path"], LABELS)[1]:
        path = line.values["path"]
        if not path:
            place = f"line {line.number}"
            raise invalid_file(table, "have a path in all lines", f"none in {place}", "Fill it in.")
        labels = (line.values.get(column) or None for column in LABELS)
        yield _entry(table_path(table, path), *labels)
