"""Readers for one's own images: a CSV table, or one folder per identity."""

import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from keras_reid.data.images import TRACKLET, PersonImages, ReidDataset, name_some
from keras_reid.data.readers.layouts import (
    JUNK,
    PARTS,
    Row,
    assemble,
    contents,
    not_images,
)
from keras_reid.errors import InputError
from keras_reid.io import Line, read_table, table_path
from keras_reid.names import normalized

COLUMNS = ("path", "identity")
OPTIONAL = ("camera", "split", "tracklet")
# A camera. 01 is 1, longer numbers are names, and one name makes all cameras names.
NUMBER = re.compile("[0-9]{1,9}")
MOST_SHOWN = 20  # broken lines
UNLABELED = str(JUNK)
DISTRACTORS = "0000"  # folder of Market-1501 sorted by identity


def read_csv(table: Path) -> ReidDataset:
    """A table with the columns path, identity and, if wanted, camera, split and tracklet.

    `path` is relative to the table; paths of Windows are read on other systems, too. Identities are
    text, as it stands there: 0001 is not 1; −1 is junk and dropped. Cameras are numbers or names;
    without the column, or with an empty one, the data has no cameras. `split` is train, query or
    gallery; without that column every image is train, so that the data can be learned from but not
    scored. Rows of the same `tracklet`, any text, are images of one person before one camera, in
    their order. For a folder, its only .csv file is read.

    Raises:
        InputError: a missing column, or all broken rows, by their lines, of which some may list
            files that are not there.
    """
    table = _only_table(table)
    lines = _checked(read_table(table, COLUMNS, OPTIONAL)[1], table)
    if not lines:
        raise InputError(f"a table must list images, but {table} lists none: add rows")

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
    if ("query" in parts) != ("gallery" in parts):
        raise InputError(
            "query and gallery are needed together, but the split column of "
            f"{table} has only {', '.join(parts)}: add the other"
        )
    return ReidDataset("csv", parts.get("train"), parts.get("query"), parts.get("gallery"))


def _only_table(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"a table must exist, but {path} does not: check the path")
    if path.is_file():
        return path
    tables = [file for file in contents(path).others if file.suffix.lower() == ".csv"]
    if len(tables) != 1:
        raise InputError(
            f"a folder must hold exactly one .csv file, but {path} holds {len(tables)}: "
            "give the path of the table itself"
        )
    return tables[0]


def _checked(lines: Iterable[Line], table: Path) -> list[Line]:
    """Return the lines without junk, with all columns; one error lists all that are broken."""
    checked, broken = [], []
    for number, given in lines:
        values = {"camera": "", "split": "train", "tracklet": "", **given}
        path = table_path(table, values["path"])
        fault = next(_faults(values, path), None)
        if fault:
            broken.append(f"line {number} of {table} {fault}")
        elif values["identity"] != UNLABELED:
            checked.append(Line(number, values | {"path": str(path)}))
    if len(broken) > 1:
        rest = f"\n  and {len(broken) - MOST_SHOWN} more" if len(broken) > MOST_SHOWN else ""
        listed = "\n  ".join(broken[:MOST_SHOWN])
        raise InputError(f"{len(broken)} lines of {table} are broken:\n  {listed}{rest}")
    if broken:
        raise InputError(broken[0])
    return checked


def _faults(values: dict[str, str], path: Path) -> Iterator[str]:
    """Yield the faults of a line."""
    for column in COLUMNS:
        if not values[column]:
            yield f"has no {column}: fill it in or remove the row"
    if values["split"] not in PARTS:
        yield f"has split {values['split']!r}: it must be one of {', '.join(PARTS)}"
    if not os.path.isfile(path):  # False also for an impossible name
        yield f"names {path}, which does not exist: restore it or remove the row"


def _is_filled(column: str, lines: list[Line], table: Path) -> bool:
    """Return whether a column has values in all lines; raise if it has in some."""
    empty = [line.number for line in lines if not line.values[column]]
    if empty and len(empty) < len(lines):
        raise InputError(
            f"line {empty[0]} of {table} has no {column}, but other lines have: fill it in, "
            "or leave the column empty in every row if there is none"
        )
    return not empty


def read_folder(root: Path) -> ReidDataset:
    """`root/{identity}/{any name}.jpg`, the identity's folder being its label; no cameras.

    All images are train, unless `root` holds the folders train, query and gallery (or some of
    them), and these hold the identities. −1 is junk and dropped. 0000 are the distractors of
    Market-1501 in a gallery, if neither train nor query has that folder, and next to a folder −1,
    where they are not trained on. Elsewhere 0000 is a person.
    """
    parts = {part: root / part for part in PARTS}
    if any(folder.is_dir() for folder in parts.values()):

        def read(source: Path) -> list[Row]:
            return _folder_rows(source, trained=source == parts["train"])

        return assemble("folder", root, parts, read, DISTRACTORS)
    return assemble("folder", root, {"train": root}, partial(_folder_rows, trained=True))


def _folder_rows(root: Path, trained: bool) -> list[Row]:
    found = contents(root)
    of_market = any(folder.name == UNLABELED for folder in found.folders)
    left_out = {UNLABELED, DISTRACTORS} if trained and of_market else {UNLABELED}
    folders = [folder for folder in found.folders if folder.name not in left_out]
    read = [contents(folder) for folder in folders]
    others = [other for one in read for other in (*one.folders, *one.others)]
    faults = [not_images(others)] if others else []
    if files := found.images + found.others:
        faults.append(
            f"each identity is a folder of images, got {name_some(files, MOST_SHOWN)} outside of "
            "these folders: move images into the folder of their identity, and other files away"
        )
    if faults:
        raise InputError("; ".join(faults))
    rows: list[Row] = []
    for folder, one in zip(folders, read, strict=True):
        if not one.images:
            raise InputError(f"identity folder {folder} has no images: add some or remove it")
        rows += [(str(file), folder.name, None) for file in one.images]
    return rows
