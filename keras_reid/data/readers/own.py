"""Readers for one's own images: a CSV table, or one folder per identity."""

import os
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

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
LONGEST = 9  # digits of a camera
MOST_SHOWN = 20  # broken lines
UNLABELED = str(JUNK)
DISTRACTORS = "0000"  # folder of Market-1501 sorted by identity


class Record(NamedTuple):
    """A row of a table of images, and the line it stands in."""

    line: int
    path: str
    identity: str
    camera: str
    split: str
    tracklet: str


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
    records = _records(read_table(table, COLUMNS, OPTIONAL)[1], table)
    if not records:
        raise InputError(f"a table must list images, but {table} lists none: add rows")
    images = PersonImages(
        np.array([record.path for record in records]),
        np.array([record.identity for record in records]),
        _cameras(records, table),
        _tracklets(records, table),
    )
    split = np.array([record.split for record in records])
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


def _records(lines: Iterable[Line], table: Path) -> list[Record]:
    """The rows but junk; all that are broken are told at once."""
    records, broken = [], []
    for line in lines:
        try:
            records.append(_record(line, table))
        except InputError as error:
            broken.append(str(error))
    if len(broken) > 1:
        told = "\n  ".join(broken[:MOST_SHOWN])
        rest = f"\n  and {len(broken) - MOST_SHOWN} more" if len(broken) > MOST_SHOWN else ""
        raise InputError(f"{len(broken)} lines of {table} are broken:\n  {told}{rest}")
    if broken:
        raise InputError(broken[0])
    return [record for record in records if record.identity != UNLABELED]


def _record(line: Line, table: Path) -> Record:
    """One checked row."""
    values = line.values

    def broken(what: str, remedy: str) -> InputError:
        return InputError(f"line {line.number} of {table} {what}: {remedy}")

    for column in ("path", "identity"):
        if not values[column]:
            raise broken(f"has no {column}", "fill it in or remove the row")
    camera = values.get("camera", "")
    if camera.isdecimal() and len(camera) > LONGEST:
        raise broken(
            f"has camera {camera[:40]!r}", f"a camera is a name, or a number of {LONGEST} digits"
        )
    split = values.get("split", "train")
    if split not in PARTS:
        raise broken(f"has split {split!r}", f"it must be one of {', '.join(PARTS)}")
    path = table_path(table, values["path"])
    if not os.path.isfile(path):  # which is False for what is no name of a file
        raise broken(f"names {path}, which does not exist", "restore it or remove the row")
    return Record(
        line.number,
        str(path),
        values["identity"],
        camera,
        split,
        values.get("tracklet", ""),
    )


def _cameras(records: list[Record], table: Path) -> np.ndarray | None:
    if not _filled("camera", records, table):
        return None
    cameras = [record.camera for record in records]
    # Numbers are numbers, 01 as 1; if one is a name, all are.
    return np.array(cameras if not all(map(_is_number, cameras)) else [*map(int, cameras)])


def _is_number(text: str) -> bool:
    return re.fullmatch(f"[0-9]{{1,{LONGEST}}}", text) is not None


def _tracklets(records: list[Record], table: Path) -> dict[str, np.ndarray]:
    if not _filled("tracklet", records, table):
        return {}
    names = [normalized(record.tracklet) for record in records]
    return {TRACKLET: np.unique(names, return_inverse=True)[1]}


def _filled(column: str, records: list[Record], table: Path) -> bool:
    """Whether a column is filled in, in all rows or in none."""
    without = [record for record in records if not getattr(record, column)]
    if without and len(without) < len(records):
        raise InputError(
            f"line {without[0].line} of {table} has no {column}, but other lines have: fill it in, "
            "or leave the column empty in every row if there is none"
        )
    return not without


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
            f"each identity is a folder of images, but {name_some(files, MOST_SHOWN)} "
            f"{'is a file' if len(files) == 1 else 'are files'} outside of these folders: move "
            "images into the folder of their identity, and other files away"
        )
    if faults:
        raise InputError("; ".join(faults))
    rows: list[Row] = []
    for folder, one in zip(folders, read, strict=True):
        if not one.images:
            raise InputError(f"identity folder {folder} has no images: add some or remove it")
        rows += [(str(file), folder.name, None) for file in one.images]
    return rows
