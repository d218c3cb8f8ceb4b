"""What stands in a data set's folder: image files, rows, and the parts they make."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from keras_reid.data.images import TRACKLET, PersonImages, ReidDataset, name_some
from keras_reid.errors import InputError, counted, printable
from keras_reid.names import expanded, natural

Row = tuple[str, int | str, int | None]  # path, identity, camera
Track = tuple[list[Path], int, int]  # files in order, identity, camera

PARTS = ("train", "query", "gallery")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MOST_SHOWN = 20  # names in a report
# Labels of Market-1501 and of the data sets in its layout; in others they are persons.
JUNK = -1
DISTRACTOR = 0
# Names that operating systems and file servers leave in folders, in addition to names that begin
# with a dot, such as `._0001.jpg` of macOS.
SYSTEM_FILES = (
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
)


def level(root: Path, *names: str) -> Path:
    """`root/name` for the first of the names that is there, else `root` itself."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def is_system(name: str) -> bool:
    """Return whether a file or folder of that name is hidden or was left by a system."""
    return name.startswith(".") or name.lower() in SYSTEM_FILES


class Contents(NamedTuple):
    """The entries of a folder by kind, in natural order; links count as what they lead to."""

    images: list[Path]
    folders: list[Path]
    others: list[Path]


def contents(folder: Path) -> Contents:
    """Return the entries of a folder, without system files.

    Images are files named as one of `SUFFIXES`. The others include links that lead nowhere.

    Raises:
        InputError: the folder is missing or cannot be read.
    """
    try:
        with os.scandir(folder) as scanned:
            listed = sorted(scanned, key=lambda entry: natural(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"a folder of images must exist, but {folder} does not: check the path"
        ) from None
    except OSError as error:
        raise InputError(
            f"a folder of images must be readable, but {folder} gave '{error.strerror}': ask for "
            "permission, or move it away"
        ) from error
    found = Contents([], [], [])
    for entry in listed:
        path, is_link = folder / entry.name, entry.is_symlink()
        if is_system(entry.name):
            continue
        if os.path.isdir(path) if is_link else entry.is_dir():
            found.folders.append(path)
        elif is_image(path) and (os.path.isfile(path) if is_link else entry.is_file()):
            found.images.append(path)
        else:
            found.others.append(path)
    return found


def is_image(path: str | os.PathLike[str]) -> bool:
    """Return whether a file of that name counts as an image."""
    name = os.path.basename(path)
    return name.lower().endswith(SUFFIXES) and not is_system(name)


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that contains nothing else except system files.

    Raises:
        InputError: the folder is missing, cannot be read, or holds files; it lists them.
    """
    found = contents(folder)
    files = found.images + found.others
    if files:
        raise InputError(f"{folder} must hold folders only, got {to_move(files)}")
    return found.folders


def image_files(*folders: Path) -> list[list[Path]]:
    """Return the image files of each folder.

    Raises:
        InputError: the folders hold anything else besides system files; one error lists all of it.
    """
    read = [contents(folder) for folder in folders]
    others = [path for found in read for path in (*found.folders, *found.others)]
    if others:
        raise InputError(not_images(others))
    return [found.images for found in read]


def not_images(others: Sequence[Path]) -> str:
    """Return the error message for entries of folders of images that are not images."""
    return f"a folder of images may hold {', '.join(SUFFIXES)} files only, got {to_move(others)}"


def to_move(files: Sequence[Path]) -> str:
    """Return the names of files and the remedy, for error messages."""
    return f"{name_some(files, MOST_SHOWN)}: move {'it' if len(files) == 1 else 'them'} away"


def unlabeled(root: str | os.PathLike[str]) -> PersonImages:
    """Return all images in a folder and its folders as identity 0 without cameras.

    See `walk_images`.

    Raises:
        InputError: the folder is missing or holds no image, or one in it cannot be read.
    """
    folder = expanded(root)
    files = sorted(walk_images(folder), key=natural)
    if not files:
        raise InputError(
            f"images to group are {', '.join(SUFFIXES)} files in a folder or in its folders, but "
            f"{folder} {'holds none' if folder.is_dir() else 'is no folder'}: name another"
        )
    return PersonImages(np.array([str(f) for f in files]), np.zeros(len(files), int), None)


def walk_images(*folders: Path, only: Callable[[Path], bool] = lambda path: True) -> Iterator[Path]:
    """Yield the image files in folders and their folders; none of a folder that does not exist.

    Links to folders are followed. Each folder is read once, under the name that is no link if there
    is one. At the end a warning names the files that are neither images nor system files.

    Args:
        folders: where the images are.
        only: whether a file is looked at.

    Raises:
        InputError: a folder cannot be read.
    """
    waiting = deque(folder for folder in folders if folder.is_dir())
    seen: set[str] = set()
    skipped: list[Path] = []
    while waiting:
        at = waiting.popleft()
        real = os.path.realpath(at)
        if real in seen:
            continue
        seen.add(real)
        found = contents(at)
        yield from filter(only, found.images)
        skipped += filter(only, found.others)
        waiting.extendleft(f for f in reversed(found.folders) if not f.is_symlink())
        waiting.extend(f for f in found.folders if f.is_symlink())
    warn_of_skipped(skipped)


def warn_of_skipped(files: Sequence[str | os.PathLike[str]]) -> None:
    """Log one warning that names files that are not images, if there are any."""
    if files:
        logging.warning(
            "skipped %s (images are %s files): %s",
            counted(len(files), "other file"),
            ", ".join(SUFFIXES),
            printable(name_some(files, MOST_SHOWN)),
        )


def named(pattern: str | re.Pattern[str], file: Path, example: str) -> re.Match[str]:
    """Match the name of a file or folder with a pattern.

    Raises:
        InputError: it does not begin as the pattern says.
    """
    match = re.match(pattern, file.name)
    if not match:
        raise InputError(
            f"what stands here is named such as {example}, but {file} is not: rename it or move it "
            "away"
        )
    return match


def of_tracks(tracks: Sequence[Track], source: Path) -> PersonImages:
    """The files of tracklets as images with a column "tracklet"; empty ones are left out.

    Raises:
        InputError: nothing is left.
    """
    kept = [track for track in tracks if track[0]]
    rows = [(str(file), identity, camera) for files, identity, camera in kept for file in files]
    number = np.repeat(np.arange(len(kept)), [len(files) for files, _, _ in kept])
    return columns(rows, source).with_columns(**{TRACKLET: number})


def columns(rows: Sequence[Row], source: Path) -> PersonImages:
    """The rows of one part as parallel columns; InputError when there are none."""
    if not rows:
        raise InputError(
            f"a part of a data set must hold images, but {source} has none: "
            "restore its images or remove it"
        )
    path, identity, camera = zip(*rows, strict=True)
    cameras = None if camera[0] is None else np.array(camera)
    return PersonImages(np.array(path), np.array(identity), cameras)


def assemble(
    name: str,
    root: Path,
    sources: dict[str, Path],
    read: Callable[[Path], list[Row]],
    distractor: int | str | None = None,
) -> ReidDataset:
    """The parts whose source is there: train alone, query and gallery, or all three.

    `distractor` is the label of distractors in the gallery, see `with_distractors`.

    Raises:
        InputError: no source is there, query or gallery is alone, or a part is empty.
    """
    if not root.is_dir():
        raise InputError(f"{name} is read from a folder, but {root} is none: check the path")
    found = {part: source for part, source in sources.items() if source.exists()}
    if not found:
        expected = ", ".join(source.name for source in sources.values())
        raise InputError(f"{name} is made of {expected}, but {root} holds none: check the path")
    for part, other in (("query", "gallery"), ("gallery", "query")):
        if part in found and other not in found:
            raise InputError(
                f"{name} needs query and gallery together, but {sources[other]} is missing "
                f"beside {found[part]}: restore it"
            )
    parts = {part: columns(read(source), source) for part, source in found.items()}
    train, query, gallery = (parts.get(part) for part in PARTS)
    if gallery is not None and distractor is not None:
        gallery = with_distractors(gallery, distractor, train, query)
    return ReidDataset(name, train, query, gallery)


def with_distractors(
    gallery: PersonImages, label: int | str, *others: PersonImages | None
) -> PersonImages:
    """Mark the images of a label as distractors, unless train or query, the `others`, have it too.

    There it is a person, as in data sets whose persons are numbered from 0.
    """
    if any(part is not None and (part.identity == label).any() for part in others):
        return gallery
    return replace(gallery, distractor=gallery.identity == label)
