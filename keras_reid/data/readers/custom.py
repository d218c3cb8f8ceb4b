"""Readers of custom images: a CSV table, or one folder per identity."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from keras_reid.data.datasets import ReidDataset
from keras_reid.data.images import TRACKLET, PersonImages
from keras_reid.data.readers.layouts import (
    JUNK,
    MOST_SHOWN,
    PARTS,
    Row,
    assemble,
    check_empty,
    check_pair,
    contents,
    filled,
)
from keras_reid.errors import InputError, invalid_file
from keras_reid.io import Line, read_table, table_path
from keras_reid.names import normalized

COLUMNS = ("path", "identity")
OPTIONAL = ("camera", "split", "tracklet")
# A camera. 01 is 1, longer numbers are names, and one name makes all cameras names.
NUMBER = re.compile("[0-9]{1,9}")
UNLABELED = str(JUNK)
DISTRACTORS = "0000"  # folder of Market-1501 sorted by identity


def read_csv(table: Path) -> ReidDataset:
    """Read a table with the columns path and identity, and optionally camera, split and tracklet.

    `path` is relative to the table; Windows paths are read on other systems, too. Identities are
    text: 0001 is not 1. Images of train may have an empty identity, see `PersonImages`. −1 is junk
    and dropped. Cameras are numbers or names; if the column is missing or empty, the data has no
    cameras. `split` is train, query or gallery; if the column is missing, every image is train.
    Rows with the same text in `tracklet` are images of one person in one camera, in their order. In
    a folder, the only .csv file is read.

    Raises:
        InputError: a column is missing, or rows are broken. The message lists the line and fault of
            the first 20 rows and counts the others.
    """
    table = _only_table(table)
    lines = filled(_checked(read_table(table, COLUMNS, OPTIONAL)[1], table), table)

    def column(name: str) -> np.ndarray:
        return np.array([line.values[name] for line in lines])

    tracklets = {}
    if _is_filled("tracklet", lines, table):
        names = list(map(normalized, column("tracklet")))
        tracklets[TRACKLET] = np.unique(names, return_inverse=True)[1]
    cameras = column("camera") if _is_filled("camera", lines, table) else None
    if cameras is not None and all(map(NUMBER.fullmatch, cameras)):
        cameras = cameras.astype(int)
    images = PersonImages(column("path"), column("identity"), cameras, tracklets)
    split = column("split")
    parts = {part: images[split == part] for part in PARTS if (split == part).any()}
    check_pair(parts, table)
    return ReidDataset("csv", *map(parts.get, PARTS))


def _only_table(path: Path) -> Path:
    if not path.is_dir():
        return path
    tables = [file for file in contents(path).others if file.suffix.lower() == ".csv"]
    if len(tables) != 1:
        fix = "Pass the path of the table itself."
        raise invalid_file(path, "hold one .csv file", len(tables), fix)
    return tables[0]


def _checked(lines: Iterable[Line], table: Path) -> list[Line]:
    """Return the lines without junk, with all columns; one error lists all broken lines."""
    checked, broken = [], []
    for number, entries in lines:
        values = {"camera": "", "split": "train", "tracklet": "", **entries}
        path = table_path(table, values["path"])
        fault = next(_faults(values, path), None)
        if fault:
            broken.append(f"line {number} has {fault}")
        elif values["identity"] != UNLABELED:
            checked.append(Line(number, values | {"path": str(path)}))
    if broken:
        rest = f"\n  and {len(broken) - MOST_SHOWN} more" if len(broken) > MOST_SHOWN else ""
        listing = "\n  ".join(broken[:MOST_SHOWN])
        raise InputError(f"`{table}` has invalid lines. Correct or remove:\n  {listing}{rest}")
    return checked


def _faults(values: dict[str, str], path: Path) -> Iterator[str]:
    """Yield the faults of a line."""
    if not values["path"]:
        yield "no path"
    if not values["identity"] and values["split"] != "train":
        yield f"no identity of a {values['split']} image"
    if values["split"] not in PARTS:
        yield f"split {values['split']!r}, not one of {', '.join(PARTS)}"
    if not os.path.isfile(path):  # False also for an impossible name
        yield f"path {path}, which does not exist"


def _is_filled(column: str, lines: Sequence[Line], table: Path) -> bool:
    """Return whether a column has values in all lines; raise if it has in some."""
    empty = [line.number for line in lines if not line.values[column]]
    if empty and len(empty) < len(lines):
        rule, fix = f"have a {column} in all lines or in none", "Fill in the missing cells."
        raise invalid_file(table, rule, f"no {column} in line {empty[0]}", fix)
    return not empty


def read_folder(root: Path) -> ReidDataset:
    """Read `root/{identity}/{any name}.jpg` without cameras; the name of the folder is the label.

    All images are train, unless `root` holds any of the folders train, query and gallery, which
    then hold the identities. −1 is junk and dropped. In train, 0000 is dropped if a folder −1
    exists. After that, 0000 in a gallery are the distractors of Market-1501 unless train or query
    has images of 0000. Elsewhere 0000 is a person.
    """
    parts = {part: root / part for part in PARTS}
    if any(folder.is_dir() for folder in parts.values()):

        def read(source: Path) -> list[Row]:
            return _folder_rows(source, trained=source == parts["train"])

        return assemble("folder", root, parts, read, DISTRACTORS)
    return assemble("folder", root, {"train": root}, partial(_folder_rows, trained=True))


def _folder_rows(root: Path, trained: bool) -> list[Row]:
    images, folders, _ = contents(root)
    of_market = any(folder.name == UNLABELED for folder in folders)
    left_out = {UNLABELED, DISTRACTORS} if trained and of_market else {UNLABELED}
    kinds = {folder: contents(folder) for folder in folders if folder.name not in left_out}
    misplaced = images + [path for kind in kinds.values() for path in kind.folders]
    check_empty(misplaced, "folders of images")
    rows = [(f, filled(kind.images, f)) for f, kind in kinds.items()]
    return [(str(file), folder.name, None) for folder, files in rows for file in files]
