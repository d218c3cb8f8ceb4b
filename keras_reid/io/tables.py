"""CSV tables, including the formats of Excel."""

import csv
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_reid.errors import invalid_file
from keras_reid.io.reading import parsing
from keras_reid.names import StrPath, expanded, normalized

SEPARATORS = ",;\t"
BLANK = SEPARATORS + ' "\r\n'
# A first line `sep=;` states the separator for Excel.
SEP_LINE = re.compile('"?sep=([,;\t|]?)', re.IGNORECASE)
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks


class Line(NamedTuple):
    """Line of a table: its number in the file, and its stripped values by column."""

    number: int
    values: dict[str, str]


def read_table(
    table: StrPath, required: Sequence[str], optional: Sequence[str] = ()
) -> tuple[list[str], Iterator[Line]]:
    """Return the columns of a CSV file, and an iterator over its lines.

    The text is UTF-8, or UTF-16 with a byte order mark. The separator is the most frequent of
    comma, semicolon and tab in the header, or that of a first line `sep=;`. Column names are in
    NFC. Lines without values and trailing columns without a name are skipped; Excel writes both.

    Args:
        table: the file.
        required: columns that must exist, in any case.
        optional: further columns that are recognized in any case.

    Raises:
        InputError: the file is not readable, or a column is missing or repeated; while the lines
            are read, one has another number of values or another encoding.
    """
    path = expanded(table)
    rows = _filled_rows(path)
    standard = {name.casefold(): name for name in (*required, *optional)}
    names = map(normalized, next(rows, (0, []))[1])
    header = [standard.get(name.casefold(), name) for name in names]
    while header and not header[-1]:
        header.pop()
    counts = {name: header.count(name) for name in (*required, *header)}
    if wrong := [name for name, count in counts.items() if count != 1]:
        rule = f"have the columns {', '.join(required)}, and each column once"
        fix = f"{wrong[0][:80]!r} {'occurs twice' if counts[wrong[0]] else 'is missing'}."
        raise invalid_file(path, rule, ", ".join(header)[:200] or "none", fix)

    def lines() -> Iterator[Line]:
        for number, values in rows:
            if len(values) < len(header) or any(values[len(header) :]):
                rule, received = f"have {len(header)} values", f"{len(values)} in line {number}"
                raise invalid_file(path, rule, received, "Correct the line.")
            yield Line(number, dict(zip(header, values, strict=False)))

    return header, lines()


def _filled_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and stripped values of the rows with values, except a row `sep=`."""
    fix = 'Check the file, or save it as UTF-8 (in Excel "CSV UTF-8").'
    with parsing(path, "be a table in UTF-8", fix):
        with path.open("rb") as start:
            encoding = "utf-16" if start.read(2) in UTF16 else "utf-8-sig"
        with path.open(newline="", encoding=encoding) as file:
            first = next((line for line in file if line.strip(BLANK)), "")
            stated = SEP_LINE.match(first)
            separator = stated[1] if stated and stated[1] else max(SEPARATORS, key=first.count)
            file.seek(0)
            rows = csv.reader(file, delimiter=separator, strict=True)
            try:
                for row in rows:
                    values = [value.strip() for value in row]
                    if any(values) and not SEP_LINE.fullmatch(row[0]):
                        yield rows.line_num, values
            except csv.Error as error:
                raise ValueError(f"{error} in line {rows.line_num}") from error


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in UTF-8.

    Args:
        path: file, which is overwritten.
        header: names of the columns.
        rows: values of each line.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(itertools.chain([header], rows))


def table_path(table: Path, name: str) -> Path:
    """Return the file that a table names by a path relative to its folder.

    A Windows path is read with `/` if only that file exists.
    """
    path = table.parent / expanded(name)
    posix = table.parent / name.replace("\\", "/")
    return posix if not os.path.exists(path) and os.path.exists(posix) else path
