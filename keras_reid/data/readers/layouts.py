"""Folders of data sets: image files, rows, and parts."""

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from keras_reid import pixels
from keras_reid.data.datasets import ReidDataset
from keras_reid.data.images import TRACKLET, PersonImages
from keras_reid.errors import invalid_file, name_some
from keras_reid.io import parsing
from keras_reid.names import StrPath, expanded, natural

T = TypeVar("T")
Row = tuple[str, int | str, int | None]  # path, identity, camera
Track = tuple[list[Path], int, int]  # files in order, identity, camera

PARTS = ("train", "query", "gallery")
SUFFIXES = pixels.SUFFIXES
MOST_SHOWN = 20  # names in a report
# Labels of Market-1501 and of the data sets in its layout; in others they are persons.
JUNK = -1
DISTRACTOR = 0
# Files of operating systems and file servers. Names that begin with a dot are skipped, too.
SYSTEM_FILES = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin"),
    *("system volume information", "lost+found"),
)


def level(root: Path, *names: str) -> Path:
    """Return the first of the folders `root/name` that exists, or `root` if none does."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def is_system(name: str) -> bool:
    """Return whether a name is hidden, or that of a file that an operating system creates."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


def is_image(path: StrPath) -> bool:
    """Return whether a file of that name counts as an image."""
    name = os.path.basename(path)
    return name.lower().endswith(SUFFIXES) and not is_system(name)


class Contents(NamedTuple):
    """Entries of a folder by kind, in natural order; links count as their targets.

    Readers ignore the others.
    """

    images: list[Path]
    folders: list[Path]
    others: list[Path]


def contents(folder: Path) -> Contents:
    """Return the entries of a folder, without system files.

    Images are files with one of `SUFFIXES`, also broken links, which do not decode.

    Raises:
        InputError: the folder is missing or cannot be read.
    """
    with (
        parsing(folder, "be a readable folder", "Check the path and its permissions."),
        os.scandir(folder) as scanned,
    ):
        entries = sorted(scanned, key=lambda entry: natural(entry.name))
    kinds = Contents([], [], [])
    for entry in entries:
        path, is_link = folder / entry.name, entry.is_symlink()
        if is_system(entry.name):
            continue
        if os.path.isdir(path) if is_link else entry.is_dir():
            kinds.folders.append(path)
        elif is_image(path):
            kinds.images.append(path)
        else:
            kinds.others.append(path)
    return kinds


def subfolders(folder: Path) -> list[Path]:
    """Return the subfolders of a folder, which must have no images itself.

    Raises:
        InputError: the folder is missing, cannot be read, or holds images, which the error lists.
    """
    images, folders, _ = contents(folder)
    check_empty(images, "folders")
    return folders


def image_files(*folders: Path) -> list[list[Path]]:
    """Return the image files of each folder.

    Raises:
        InputError: the folders hold folders; it lists them all.
    """
    kinds = [contents(folder) for folder in folders]
    check_empty([path for kind in kinds for path in kind.folders], "image files")
    return [kind.images for kind in kinds]


def check_empty(others: Sequence[Path], kind: str) -> None:
    """Raise `InputError` for images and folders in a place that a reader does not read."""
    if others:
        shown = name_some(others, MOST_SHOWN)
        raise invalid_file(others[0].parent, f"hold {kind} only", shown, "Move them away.")


def unlabeled(root: StrPath) -> PersonImages:
    """Return all images in a folder and its subfolders, with identity 0 and without cameras.

    See `walk_images`.

    Raises:
        InputError: the folder is missing or holds no image, or a subfolder cannot be read.
    """
    folder = expanded(root)
    files = sorted(map(str, walk_images(folder)), key=natural)
    return PersonImages(np.array(filled(files, folder)), np.zeros(len(files), int), None)


def walk_images(*folders: Path, only: Callable[[Path], bool] = lambda path: True) -> Iterator[Path]:
    """Yield the image files in folders and their subfolders; skip folders that do not exist.

    Links to folders are followed. Each folder is read once, by a path without links if it has one.
    Other files are ignored.

    Args:
        folders: folders of images.
        only: condition for a file.

    Raises:
        InputError: a folder cannot be read.
    """
    waiting = deque(folder for folder in folders if folder.is_dir())
    visited: set[str] = set()
    while waiting:
        folder = waiting.popleft()
        real = os.path.realpath(folder)
        if real in visited:
            continue
        visited.add(real)
        images, inner, _ = contents(folder)
        yield from filter(only, images)
        waiting.extendleft(f for f in reversed(inner) if not f.is_symlink())
        waiting.extend(f for f in inner if f.is_symlink())


def named(pattern: str | re.Pattern[str], file: Path, example: str) -> re.Match[str]:
    """Match the beginning of the name of a file or folder with a pattern.

    Raises:
        InputError: no match.
    """
    if match := re.match(pattern, file.name):
        return match
    rule = f"hold names such as {example}"
    raise invalid_file(file.parent, rule, file.name, "Rename it or move it away.")


def check_exists(file: Path, source: object) -> Path:
    """Return a file; raise `InputError` if `source`, a list of files, names one that is missing."""
    if not os.path.isfile(file):  # False also for an impossible name
        raise invalid_file(source, "name existing files", file, "Restore it.")
    return file


def of_tracks(tracks: Sequence[Track], source: Path) -> PersonImages:
    """Return the files of tracklets with a column "tracklet"; empty tracklets are left out.

    Raises:
        InputError: all are empty.
    """
    filled = [track for track in tracks if track[0]]
    rows = [(str(file), identity, camera) for files, identity, camera in filled for file in files]
    number = np.repeat(np.arange(len(filled)), [len(files) for files, _, _ in filled])
    return columns(rows, source).with_columns(**{TRACKLET: number})


def filled(rows: Sequence[T], source: Path) -> Sequence[T]:
    """Return the rows; raise `InputError` if the list is empty."""
    if not rows:
        received = "none" if source.exists() else "no such file or folder"
        raise invalid_file(source, "contain images", received, "Check the path.")
    return rows


def columns(rows: Sequence[Row], source: Path) -> PersonImages:
    """Return the rows of one part as parallel columns; raise `InputError` if the list is empty."""
    path, identity, camera = zip(*filled(rows, source), strict=True)
    cameras = None if camera[0] is None else np.array(camera)
    return PersonImages(np.array(path), np.array(identity), cameras)


def assemble(
    name: str,
    root: Path,
    sources: dict[str, Path],
    read: Callable[[Path], list[Row]],
    distractor: int | str | None = None,
) -> ReidDataset:
    """Return the data set of the existing sources: only train, query and gallery, or all three.

    `distractor` is the label of distractors in the gallery, see `with_distractors`.

    Raises:
        InputError: no source exists, only one of query and gallery exists, or a part is empty.
    """
    existing = {part: source for part, source in sources.items() if source.exists()}
    if not existing:
        rule = f"hold {', '.join(source.name for source in sources.values())}"
        raise invalid_file(root, rule, "none", f"Check the path to {name}.")
    check_pair(existing, root)
    parts = {part: columns(read(source), source) for part, source in existing.items()}
    train, query, gallery = (parts.get(part) for part in PARTS)
    if gallery is not None and distractor is not None:
        gallery = with_distractors(gallery, distractor, train, query)
    return ReidDataset(name, train, query, gallery)


def check_pair(parts: Collection[str], source: Path) -> None:
    """Raise `InputError` if a data set has query images and no gallery images, or the reverse."""
    if ("query" in parts) != ("gallery" in parts):
        rule = "have both query and gallery"
        raise invalid_file(source, rule, ", ".join(parts), "Add the other one.")


def with_distractors(
    gallery: PersonImages, label: int | str, *others: PersonImages | None
) -> PersonImages:
    """Mark the images of a label as distractors, unless `others`, train or query, have the label.

    In such data sets the label is a person, because they number their persons from 0.
    """
    if any(part is not None and (part.identity == label).any() for part in others):
        return gallery
    return replace(gallery, distractor=gallery.identity == label)
