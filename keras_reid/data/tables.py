"""Readers for one's own images: a CSV table, or one folder per identity."""

import csv
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid.data.images import PersonImages, ReidDataset
from keras_reid.data.layouts import Row, assemble, entries, image_files
from keras_reid.errors import InputError

PARTS = ("train", "query", "gallery")
COLUMNS = ("path", "identity", "camera")


class Record(NamedTuple):
    """A row of a table of images, and the line it stands in."""

    line: int
    path: str
    identity: str
    camera: str
    split: str


def read_csv(table: Path) -> ReidDataset:
    """A table with the columns path, identity, camera and, if wanted, split.

    `path` is relative to the table. Identities are integers if all of them are, else text; −1 is
    junk and dropped. Cameras are integers; the column left empty in every row says that the data
    has no cameras. `split` is train, query or gallery; without that column every image is train,
    so that the data can be learned from but not scored. For a folder, its only .csv file is read.

    Raises:
        InputError: a missing column, a broken row (by its line), a listed file that is not there.
    """
    table = _only_table(table)
    records = [record for record in _records(table) if record.identity != "-1"]
    if not records:
        raise InputError(f"a table must list images, but {table} lists none: add rows")
    identities = [record.identity for record in records]
    numbers = all(re.fullmatch(r"-?\d+", identity) for identity in identities)
    images = PersonImages(
        np.array([record.path for record in records]),
        np.array([int(identity) for identity in identities] if numbers else identities),
        _cameras(records, table),
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
    tables = [file for file in entries(path) if file.suffix.lower() == ".csv"]
    if len(tables) != 1:
        raise InputError(
            f"a folder must hold exactly one .csv file, but {path} holds {len(tables)}: "
            "give the path of the table itself"
        )
    return tables[0]


def _records(table: Path) -> list[Record]:
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            header = rows.fieldnames or []
            for column in COLUMNS:
                if column not in header:
                    raise InputError(
                        f"a table needs the columns {', '.join(COLUMNS)}, but {table} has only "
                        f"{', '.join(header) or 'none'}: add {column}"
                        + (
                            " (left empty in every row if there are no cameras)"
                            * (column == "camera")
                        )
                    )
            return [_record(row, table, rows.line_num) for row in rows]
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"a table must be UTF-8 text with comma-separated values, but {table} breaks "
                f"off after line {rows.line_num} ({error}): mend it"
            ) from error


def _record(row: dict[str, Any], table: Path, line: int) -> Record:
    """One checked row; DictReader files surplus values under None and missing ones as None."""

    def broken(what: str, remedy: str) -> InputError:
        return InputError(f"line {line} of {table} {what}: {remedy}")

    if None in row or None in row.values():
        raise broken("has more or fewer values than the header", "mend the row")
    values = {column: value.strip() for column, value in row.items()}
    for column in ("path", "identity"):
        if not values[column]:
            raise broken(f"has no {column}", "fill it in or remove the row")
    if not re.fullmatch(r"\d*", values["camera"]):
        raise broken(f"has camera {values['camera']!r}", "a camera must be a whole number")
    split = values.get("split", "train")
    if split not in PARTS:
        raise broken(f"has split {split!r}", f"it must be one of {', '.join(PARTS)}")
    path = table.parent / values["path"]
    if not path.is_file():
        raise broken(f"names {path}, which does not exist", "restore it or remove the row")
    return Record(line, str(path), values["identity"], values["camera"], split)


def _cameras(records: list[Record], table: Path) -> np.ndarray | None:
    without = [record for record in records if not record.camera]
    if len(without) == len(records):
        return None
    if without:
        raise InputError(
            f"line {without[0].line} of {table} has no camera, but other lines have: "
            "fill it in, or leave the column empty in every row if there are no cameras"
        )
    return np.array([int(record.camera) for record in records])


def read_folder(root: Path) -> ReidDataset:
    """`root/{identity}/{any name}.jpg`, the identity's folder being its label; no cameras.

    All images are train, unless `root` holds the folders train, query and gallery (or some of
    them), and these hold the identities.
    """
    parts = {part: root / part for part in PARTS}
    if any(folder.is_dir() for folder in parts.values()):
        return assemble("folder", root, parts, _folder_rows)
    return assemble("folder", root, {"train": root}, _folder_rows)


def _folder_rows(root: Path) -> list[Row]:
    rows: list[Row] = []
    for folder in entries(root):
        if not folder.is_dir():
            raise InputError(
                f"each identity is a folder of images, but {folder} is a file: "
                "move it into the folder of its identity"
            )
        files = image_files(folder)
        if not files:
            raise InputError(f"identity folder {folder} has no images: add some or remove it")
        rows += [(str(file), folder.name, None) for file in files]
    return rows
