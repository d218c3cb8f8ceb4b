"""What stands in a data set's folder: image files, rows, and the parts they make."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from keras_reid.data.images import TRACKLET, PersonImages, ReidDataset
from keras_reid.data.pillow import SUFFIXES
from keras_reid.errors import InputError
from keras_reid.files import natural

Row = tuple[str, int | str, int | None]  # path, identity, camera
Track = tuple[list[Path], int, int]  # files in order, identity, camera

PARTS = ("train", "query", "gallery")
# Labels of Market-1501 and of the data sets in its layout; in others they are persons.
JUNK = -1
DISTRACTOR = 0
CLUTTER = ("thumbs.db", "desktop.ini")  # left by file browsers; Market-1501 ships with Thumbs.db


def level(root: Path, *names: str) -> Path:
    """`root/name` for the first of the names that is there, else `root` itself."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def entries(folder: Path) -> list[Path]:
    """Entries of a folder in natural order, without hidden files and those of file browsers."""
    if not folder.is_dir():
        raise InputError(f"a folder of images must exist, but {folder} does not: check the path")
    names = [entry.name for entry in os.scandir(folder)]
    kept = (n for n in names if not n.startswith(".") and n.lower() not in CLUTTER)
    return [folder / name for name in sorted(kept, key=natural)]


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder that holds nothing else."""
    files = entries(folder)
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise InputError(
                f"a folder of images may hold {', '.join(SUFFIXES)} files only, "
                f"but {file} stands there: move it away"
            )
    return files


def unlabelled(root: str | os.PathLike[str]) -> PersonImages:
    """All images beneath a folder, whoever they show: identity 0, no cameras. Other files stay.

    Raises:
        InputError: the folder is missing or holds no image, or one in it cannot be read.
    """
    folder = Path(root).expanduser()
    files = sorted(walk_images(folder), key=natural)
    if not files:
        raise InputError(
            f"images to group are {', '.join(SUFFIXES)} files in a folder or in its folders, but "
            f"{folder} {'holds none' if folder.is_dir() else 'is no folder'}: name another"
        )
    return PersonImages(np.array([str(f) for f in files]), np.zeros(len(files), int), None)


def walk_images(folder: Path) -> Iterator[Path]:
    """The image files beneath a folder, one at a time; none of what is no folder.

    Raises:
        InputError: a folder in it cannot be read.
    """

    def refuse(error: OSError) -> None:
        if error.filename != str(folder):
            raise InputError(
                f"all folders in {folder} are looked at: {error.filename} gave "
                f"'{error.strerror}'; ask for permission, or move it away"
            )

    for at, _, names in os.walk(folder, onerror=refuse):
        yield from (Path(at) / name for name in names if name.lower().endswith(SUFFIXES))


def named(pattern: str | re.Pattern[str], file: Path, example: str) -> re.Match[str]:
    """What the name of a file or folder says.

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
