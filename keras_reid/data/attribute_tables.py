"""Attributes of persons from the files of Market-1501 and DukeMTMC-reID, or from a table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.data.images import PersonImages
from keras_reid.errors import InputError, Shown, invalid, invalid_file, name_some
from keras_reid.io import parsing, read_matlab, read_table
from keras_reid.names import StrPath, expanded, normalized

ATTRIBUTES = "attributes"  # the column of the images
AGES = ("child", "teenager", "adult", "old")
COLORS = "black|white|red|purple|yellow|gray|grey|blue|green|brown|pink|orange|mixture"
# At most one attribute of each group is true.
EXCLUSIVE = {
    "up": re.compile(f"up_?({COLORS})"),
    "down": re.compile(f"down_?({COLORS})"),
    "age": re.compile("age_.+"),
}
UNKNOWN = -1.0


@dataclass(frozen=True)
class AttributeSchema:
    """Names of attributes, and groups of attributes that exclude each other.

    Args:
        names: such as "hat" and "upred", kept in Unicode NFC.

    Raises:
        InputError: a name occurs twice, also in two Unicode forms.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        names = tuple(map(normalized, self.names))
        twice = [f"{name[:80]!r} twice" for name in names if names.count(name) > 1]
        if twice:
            raise invalid("names", "different attributes", Shown(twice[0]), "Rename or remove one.")
        object.__setattr__(self, "names", names)

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Columns of each group (up, down, age) of attributes; at most one of a group is true."""
        columns = {
            group: tuple(i for i, name in enumerate(self.names) if pattern.fullmatch(name))
            for group, pattern in EXCLUSIVE.items()
        }
        return {group: members for group, members in columns.items() if len(members) > 1}

    @property
    def exclusive(self) -> tuple[tuple[int, ...], ...]:
        """The groups as an argument of `keras_reid.losses.AttributeLoss`."""
        return tuple(self.groups.values())

    def column(self, name: str) -> int:
        """Return the column of an attribute; raise `InputError` for an unknown name."""
        name = normalized(name)
        checks.one_of(self.names, attribute=name)
        return self.names.index(name)


@dataclass(frozen=True, eq=False)
class AttributeTable:
    """Attributes of identities: `values[i, m]` is 1, 0 or −1 (unknown) for `identity[i]`.

    Args:
        schema: names of the m attributes.
        identity: (n,) labels.
        values: (n, m).

    Raises:
        InputError: two rows of one identity with different values.

    Example:
        >>> schema = AttributeSchema(("hat", "backpack"))
        >>> table = AttributeTable(schema, np.array(["7"]), np.array([[1, 0]]))
        >>> images = PersonImages(["a.jpg", "b.jpg"], [7, 8], None)
        >>> table.label(images).columns["attributes"].tolist()
        [[1.0, 0.0], [-1.0, -1.0]]
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
        """Return the images with the column "attributes" (n, m).

        Attributes of identities that are not in the table are −1.

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
            rule = f"identities of the images, such as {name_some(images.identity.tolist(), 3)}"
            raise invalid("identity", rule, Shown(name_some(list(row), 3)), "Rename them.")
        values = np.where((index >= 0)[:, None], self.values[index], UNKNOWN)
        return images.with_columns(**{ATTRIBUTES: values.astype(np.float32)})


def rates(images: PersonImages) -> np.ndarray:
    """Return the fraction (m,) of the images with each attribute; unknown values do not count.

    Args:
        images: n images with the column "attributes" (n, m).
    """
    values = images.columns[ATTRIBUTES]
    labeled = values >= 0
    return np.where(labeled, values, 0).sum(0) / np.maximum(1, labeled.sum(0))


def read_attributes(path: StrPath) -> AttributeTable:
    """Read the attributes of identities from a table or from the published MATLAB file.

    A table is a CSV file with the column identity and one column per attribute: 1 (no) and 2 (yes)
    as published, or 0 and 1; −1 or an empty cell is unknown. `age`, 1 to 4, becomes age_child,
    age_teenager, age_adult and age_old. `market_attribute.mat` and `duke_attribute.mat` hold the
    same for the identities of train and test, which are read together (Lin et al., Improving Person
    Re-identification by Attribute and Identity Learning, arXiv:1703.07220).

    Args:
        path: `.csv` or `.mat` file.

    Raises:
        InputError: a missing or malformed file, with line or column; an attribute twice; an
            identity with two rows of different values.
    """
    file = expanded(path)
    columns = _of_mat(file) if file.suffix.lower() == ".mat" else _of_csv(file)
    identity = np.array(columns.pop("identity"), str)
    # Columns share one coding: a column of ones only is "no" if another column has a 2.
    yes = 2 if any((v == 2).any() for name, v in columns.items() if name != "age") else 1
    values: list[tuple[str, np.ndarray]] = []
    for name, codes in columns.items():
        values += _categories(name, codes, yes, file).items()
    if not values or not len(identity):
        received = f"{len(identity)} identities and {len(values)} attributes"
        raise invalid_file(file, "have attributes of identities", received, "Add some.")
    names, columns = zip(*values, strict=True)
    return AttributeTable(AttributeSchema(names), identity, np.stack(columns, axis=1))


def _of_csv(file: Path) -> dict[str, Any]:
    header, lines = read_table(file, ("identity",), ("age",))
    columns: dict[str, list[Any]] = {name: [] for name in header}
    rule, fix = (
        "have attributes 1 and 2, or 0 and 1",
        "Write −1 or leave the cell empty for unknown.",
    )
    for number, values in lines:
        with parsing(f"{file}, line {number}", rule, fix):
            for name, text in values.items():
                columns[name].append(text if name == "identity" else float(text or UNKNOWN))
    return {name: np.array(values) for name, values in columns.items()}


def _of_mat(file: Path) -> dict[str, Any]:
    parts: dict[str, list[np.ndarray]] = {}
    for place, value in read_matlab(file).items():
        _, part, name = f"//{place}".rsplit("/", 2)
        if part in ("train", "test"):
            parts.setdefault(name, []).append(np.atleast_1d(value).ravel())
    rule = "have the structures train and test with image_index, as market_attribute.mat"
    with parsing(file, rule, "Download it again, or use a CSV file.", (KeyError, ValueError)):
        columns = {name: np.concatenate(values) for name, values in parts.items()}
        identity = columns.pop("image_index").astype(str)
        rows = np.stack([np.asarray(values, np.float64) for values in columns.values()])
        np.broadcast_shapes(rows.shape[1:], identity.shape)
    return {"identity": identity, **dict(zip(columns, rows, strict=True))}


def _categories(name: str, codes: np.ndarray, yes: int, file: Path) -> dict[str, np.ndarray]:
    """Return a column of 1, 0 and −1 for each category of an attribute."""
    if name == "age":
        categories = {f"age_{age}": code for code, age in enumerate(AGES, start=1)}
        allowed = [UNKNOWN, *categories.values()]
        rule = f"have ages 1 to {len(AGES)}, {', '.join(AGES)}"
    else:
        categories, allowed = {name: yes}, [UNKNOWN, yes - 1, yes]
        rule = "have attributes that are all 1 (no) and 2 (yes), or all 0 and 1"
    wrong = codes[~np.isin(codes, allowed)]
    if len(wrong):
        raise invalid_file(file, rule, f"{wrong[0]:g} in {name}", "Correct the column.")
    return {
        category: np.where(codes == UNKNOWN, UNKNOWN, codes == code)
        for category, code in categories.items()
    }
