"""Tables of comma-separated values, for whoever reads one."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_reid.errors import InputError


class Line(NamedTuple):
    """A line of a table: its number in the file, and its values by column, without spaces."""

    number: int
    values: dict[str, str]


def read_table(
    table: Path, required: Sequence[str], hints: Mapping[str, str] | None = None
) -> tuple[list[str], Iterator[Line]]:
    """The columns of a CSV file in UTF-8, and its lines as they are read.

    Args:
        table: the file.
        required: columns that it must have.
        hints: what else to say where one of these is missing.

    Raises:
        InputError: no such file, a missing column; while the lines are read, one of another number
            of values, or something that is no text.
    """
    if not table.is_file():
        raise InputError(f"a table is a CSV file: {table} is none")
    hints = hints or {}
    lines = _lines(table)
    header = list(next(lines).values)
    missing = [column for column in required if column not in header]
    if missing:
        raise InputError(
            f"a table needs the columns {', '.join(required)}, but {table} has only "
            f"{', '.join(header)[:200] or 'none'}: add {missing[0]}{hints.get(missing[0], '')}"
        )
    return header, lines


def _lines(table: Path) -> Iterator[Line]:
    """The header, each column as the value of itself, and then the lines."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            yield Line(1, dict(zip(header, header, strict=True)))
            for row in rows:
                if row and len(row) != len(header):
                    raise InputError(
                        f"line {rows.line_num} of {table} has more or fewer values than the "
                        "header: mend the row"
                    )
                if row:
                    values = [value.strip() for value in row]
                    yield Line(rows.line_num, dict(zip(header, values, strict=True)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(
                f"a table must be UTF-8 text with comma-separated values, but {table} breaks "
                f"off in line {rows.line_num} ({error}): mend it"
            ) from error
