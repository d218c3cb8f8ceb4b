"""Attributes of persons: those of Market-1501 and DukeMTMC-reID, or of one's own table."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid.data.images import PersonImages
from keras_reid.errors import InputError
from keras_reid.io import read_matlab, read_table
from keras_reid.names import expanded, normalized

ATTRIBUTES = "attributes"  # the column of the images
AGES = ("child", "teenager", "adult", "old")
COLORS = "black|white|red|purple|yellow|gray|grey|blue|green|brown|pink|orange|mixture"
# Of each group at most one is true: up... and down... colors, and the ages.
EXCLUSIVE = {
    "up": re.compile(f"up_?({COLORS})"),
    "down": re.compile(f"down_?({COLORS})"),
    "age": re.compile("age_.+"),
}
UNKNOWN = -1.0


@dataclass(frozen=True)
class AttributeSchema:
    """Attributes by name, and which of them exclude each other.

    Raises:
        InputError: a name occurs twice, in one or two spellings of Unicode.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        names = tuple(map(normalized, self.names))
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                f"`names` must be different attributes, got {twice[:80]!r} twice. Rename or remove "
                "one."
            )
        object.__setattr__(self, "names", names)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The columns of which at most one is true, by the name of the group: up, down, age."""
        found = {
            group: tuple(i for i, name in enumerate(self.names) if pattern.fullmatch(name))
            for group, pattern in EXCLUSIVE.items()
        }
        return {group: columns for group, columns in found.items() if len(columns) > 1}

    @property
    def exclusive(self) -> tuple[tuple[int, ...], ...]:
        """The groups as `keras_reid.losses.AttributeLoss` takes them."""
        return tuple(self.groups.values())

    def column(self, name: str) -> int:
        """The column of an attribute; an unknown name raises `InputError` and lists the known."""
        name = normalized(name)
        if name not in self.names:
            raise InputError(f"attributes are {', '.join(self.names)}: received {name!r}")
        return self.names.index(name)


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """The attributes of identities: `values[i, m]` is 1, 0 or −1 (unknown) for `identity[i]`.

    Raises:
        InputError: two rows of one identity with different values.
    """

    schema: AttributeSchema
    identity: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        self._rows(normalized(str(name)) for name in self.identity.tolist())

    def _rows(self, names: Iterable[str]) -> dict[str, int]:
        """Return a row of each name; raise if its rows differ."""
        rows: dict[str, int] = {}
        for i, name in enumerate(names):
            first = rows.setdefault(name, i)
            if not np.array_equal(self.values[first], self.values[i]):
                raise InputError(
                    f"`identity` must have one set of attributes, got {name[:80]!r} with different "
                    f"values in rows {first + 1} and {i + 1}. Remove one of the rows."
                )
        return rows

    def label(self, images: PersonImages) -> PersonImages:
        """The images with the column "attributes" (n, m); −1 for identities that are not in it.

        Raises:
            InputError: no identity of the images is in the table; identities of the images are
                integers, and the table has one twice, such as 2 and 0002, with different values.
        """
        names = [normalized(str(name)) for name in self.identity.tolist()]
        if images.identity.dtype.kind == "i":  # 0002 of a table is 2
            names = [name.lstrip("0") or "0" for name in names]
        row = self._rows(names)
        index = np.array([row.get(str(name), -1) for name in images.identity.tolist()])
        if not (index >= 0).any():
            raise InputError(
                "a table of attributes has identities of the images: it knows "
                f"{', '.join(list(row)[:3])} …, the images show "
                f"{', '.join(map(str, images.identity[:3]))} …"
            )
        values = np.where((index >= 0)[:, None], self.values[index], UNKNOWN)
        return images.with_columns(**{ATTRIBUTES: values.astype(np.float32)})


def rates(images: PersonImages) -> np.ndarray:
    """The fraction (m,) of the images, of those of which it is known, that have each attribute."""
    values = images.columns[ATTRIBUTES]
    known = values >= 0
    return np.where(known, values, 0).sum(0) / np.maximum(1, known.sum(0))


def read_attributes(path: str | os.PathLike[str]) -> AttributeTable:
    """The attributes of identities from a table or from the published MATLAB file.

    A table is a CSV file with the column identity and one for each attribute: 1 (no) and 2 (yes) as
    published, or 0 and 1; -1 or nothing is unknown. `age`, 1 to 4, becomes age_child, age_teenager,
    age_adult and age_old. `market_attribute.mat` and `duke_attribute.mat` hold the same for the
    identities of train and test, which are read together (Lin et al., Improving Person
    Re-identification by Attribute and Identity Learning, arXiv:1703.07220).

    Raises:
        InputError: a file that is missing or of another form, by line or column; an attribute
            twice; an identity with two rows of different values.
    """
    file = expanded(path)
    if not file.is_file():
        raise InputError(f"attributes are read from a CSV or .mat file: {file} is none")
    columns = _of_mat(file) if file.suffix.lower() == ".mat" else _of_csv(file)
    identity = np.array(columns.pop("identity"), str)
    # One coding for all: a column of ones alone is "no" to everybody where others have a 2.
    yes = 2 if any((v == 2).any() for name, v in columns.items() if name != "age") else 1
    values: list[tuple[str, np.ndarray]] = []
    for name, codes in columns.items():
        values += _categories(name, codes, yes, file).items()
    if not values or not len(identity):
        raise InputError(f"a table of attributes has attributes and identities: {file} has none")
    names, columns = zip(*values, strict=True)
    return AttributeTable(AttributeSchema(names), identity, np.stack(columns, axis=1))


def _of_csv(file: Path) -> dict[str, Any]:
    header, lines = read_table(file, ("identity",), ("age",))
    columns: dict[str, list[Any]] = {name: [] for name in header}
    for number, values in lines:
        for name, text in values.items():
            try:
                columns[name].append(text if name == "identity" else float(text or UNKNOWN))
            except ValueError:
                raise InputError(
                    f"line {number} of {file} has {name}={text!r}: attributes are "
                    "1 and 2, or 0 and 1; -1 or nothing is unknown"
                ) from None
    return {name: np.array(values) for name, values in columns.items()}


def _of_mat(file: Path) -> dict[str, Any]:
    parts: dict[str, list[np.ndarray]] = {}
    for place, value in read_matlab(file).items():
        _, part, name = f"//{place}".rsplit("/", 2)
        if part in ("train", "test"):
            parts.setdefault(name, []).append(np.atleast_1d(value).ravel())
    try:
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        identity = joined.pop("image_index").astype(str)
        values = {name: np.asarray(value, np.float64) for name, value in joined.items()}
        if any(len(value) != len(identity) for value in values.values()):
            raise ValueError("other numbers of values than of identities")
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{file} is no market_attribute.mat or duke_attribute.mat, with the structures train "
            f"and test that hold image_index ({str(error)[:120]}): download it again, or use a CSV"
        ) from error
    return {"identity": identity, **values}


def _categories(name: str, codes: np.ndarray, yes: int, file: Path) -> dict[str, np.ndarray]:
    """Return a column of 1, 0 and −1 for each category of an attribute."""
    if name == "age":
        categories = {f"age_{age}": code for code, age in enumerate(AGES, start=1)}
        allowed = [UNKNOWN, *categories.values()]
        rule = f"age is 1 to {len(AGES)}, {', '.join(AGES)}"
    else:
        categories, allowed = {name: yes}, [UNKNOWN, yes - 1, yes]
        rule = "attributes are all 1 (no) and 2 (yes), or all 0 and 1"
    wrong = codes[~np.isin(codes, allowed)]
    if len(wrong):
        raise InputError(f"{rule}: {name} in {file} holds {wrong[0]:g}")
    return {
        category: np.where(codes == UNKNOWN, UNKNOWN, codes == code)
        for category, code in categories.items()
    }
