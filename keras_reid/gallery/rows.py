"""Rows of a gallery, filters, search results, and the operations of a back end."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_reid.errors import InputError, Shown, invalid, printable
from keras_reid.names import normalized, repeated

LONGEST_TEXT = 1000  # characters; Milvus holds 4,096 bytes
# Column, operator (in, not in, >= or <) and value, a sequence for `in`
Condition = tuple[str, str, Any]


class Row(NamedTuple):
    """Columns of a gallery row except its embedding.

    Attributes:
        image: reference to the image, such as its path.
        identity, camera: texts in Unicode NFC; "" for an unknown camera.
        time: seconds, or None if unknown.
        attributes: probabilities of the gallery's attributes, "0.91,0.02,…", or "".
        digest: digest of the content of the image file, or "" if unknown.
    """

    image: str
    identity: str
    camera: str = ""
    time: float | None = None
    attributes: str = ""
    digest: str = ""

    def relabeled(self, new: "Row") -> "Row":
        """Return the row with the identity, and the known camera and time, of another row."""
        time = self.time if new.time is None else new.time
        return self._replace(identity=new.identity, camera=new.camera or self.camera, time=time)


class Changes(NamedTuple):
    """Comparison of n images with the rows of a gallery, as masks (n,).

    Attributes:
        new: the gallery has no row of the image.
        replaced: the content differs, or is unknown on either side.
        moved: the identity, the camera or the time differs.
    """

    new: np.ndarray
    replaced: np.ndarray
    moved: np.ndarray


class SearchResult(NamedTuple):
    """Retrieved gallery image.

    Attributes:
        image, identity, camera, time: columns of the row, see `Row`.
        distance: `|x − y|`.
        reranked: distance of the re-ranker, or None. Only the order has a meaning.
    """

    image: str
    identity: str
    camera: str
    time: float | None
    distance: float
    reranked: float | None = None


@dataclass(frozen=True)
class Filter:
    """Conditions for the rows of a search; None sets no condition. Cameras are compared in NFC.

    Attributes:
        cameras: rows of one of these cameras.
        not_cameras: excluded cameras.
        after, before: rows with `after <= time < before`, in seconds; a row without a time is in
            no such interval.
    """

    cameras: Sequence[str | int] | None = None
    not_cameras: Sequence[str | int] | None = None
    after: float | None = None
    before: float | None = None

    def __post_init__(self) -> None:
        for name in ("cameras", "not_cameras"):
            value = getattr(self, name)
            if isinstance(value, str | bytes) or not isinstance(value, Iterable | None):
                raise invalid(name, "a list of cameras", value)
            if value is not None:
                object.__setattr__(self, name, tuple(normalized(label(one, name)) for one in value))
        for name in ("after", "before"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise invalid(name, "a finite time in seconds", value)
            object.__setattr__(self, name, None if value is None else float(value))

    def conditions(self) -> list[Condition]:
        """Return the conditions for a back end."""
        parts = [
            ("camera", "in", self.cameras),
            ("camera", "not in", self.not_cameras or None),
            ("time", ">=", self.after),
            ("time", "<", self.before),
        ]
        return [part for part in parts if part[2] is not None]


NO_FILTER = Filter()


class Store(Protocol):
    """Back end of a gallery. A write is durable when the method returns.

    A row has two further columns: `embedding`, and `spelled`, the `key` of its image in NFC.
    """

    def settings(self) -> dict[str, Any]:
        """Return the last saved settings; empty in a new gallery."""

    def save_settings(self, settings: dict[str, Any]) -> None:
        """Replace the settings."""

    def count(self) -> int:
        """Return the number of rows."""

    def identities(self) -> dict[str, int]:
        """Return the number of rows of each identity, in the order of the names."""

    def rows(self, conditions: Sequence[Condition]) -> Iterator[Row]:
        """Yield the rows that fulfill all conditions."""

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        """Return embeddings (n, d) of enrolled images, by their references in the gallery."""

    def search(
        self, x: np.ndarray, top_k: int, conditions: Sequence[Condition]
    ) -> list[list[SearchResult]]:
        """Return the nearest of the rows that fulfill all conditions, for queries (q, d)."""

    def write(self, images: Sequence[str], x: np.ndarray, rows: Sequence[Row]) -> None:
        """Delete the rows of these image references, and add new rows with embeddings (n, d).

        `purge`, or `close`, erases the deleted rows.
        """

    def purge(self) -> None:
        """Erase deleted rows from all files."""

    def stats(self) -> dict[str, Any]:
        """Return the kind of search, and the recall of an approximate index, by name."""

    def close(self) -> None:
        """Erase deleted rows, and release files and connections."""


def seconds(text: str | None) -> float | None:
    """Return seconds since 1970 from a number or ISO 8601, in local time unless it has a zone."""
    if not text:
        return None
    for read in (float, lambda text: datetime.fromisoformat(text).timestamp()):
        with suppress(ValueError):
            return read(text)
    raise InputError(f"Times are seconds since 1970 or ISO 8601 (2026-01-31T12:00), got {text!r}.")


def label(value: Any, name: str) -> str:
    """Return a text or integer label as text.

    Raises:
        InputError: a value of another type, such as NaN, or 1.0. Tables change 1 to 1.0 in a column
            of integers with empty cells.
    """
    if isinstance(value, str | int | np.integer) and not isinstance(value, bool):
        return str(value)
    raise invalid(name, "a string or an integer", value, "Convert all values first.")


def checked_rows(
    count: int,
    identities: Sequence[Any],
    cameras: Sequence[Any] | None,
    times: Sequence[float | None] | None,
    images: Sequence[str] | None,
    digests: Sequence[str] | None = None,
) -> list[Row]:
    """Return rows of columns (n,); the arguments are those of `Gallery.enrol`.

    If `images` is None, the references are "".

    Raises:
        InputError: columns that do not fit, or an image that occurs twice.
    """
    paths = _texts(images, count, "images")
    image = "" if "" in paths else repeated(paths)
    if images is not None and image is not None:
        raise invalid("images", "not empty and distinct", Shown(f"{image!r} (empty or repeated)"))
    rows = zip(
        paths,
        names(identities, count, "identities"),
        names(cameras, count, "cameras"),
        _times(times, count),
        [""] * count,
        _texts(digests, count, "digests"),
        strict=True,
    )
    return [Row(*row) for row in rows]


def names(values: Sequence[Any] | None, count: int, name: str) -> list[str]:
    """Return labels (n,) as texts in Unicode NFC, "" where unknown; identities must be known."""
    texts = [normalized(text) for text in _texts(values, count, name)]
    if name == "identities" and "" in texts:
        rule = "texts that are not empty"
        raise invalid(name, rule, Shown(f"'' in row {texts.index('')}"))
    return texts


def key(image: str) -> int:
    """Return 63 bits of a hash of an image reference."""
    digest = hashlib.blake2b(image.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def unprintable(text: str) -> bool:
    """Return whether a text has control characters or bytes that are not UTF-8."""
    return printable(text) != text or "\n" in text or "\t" in text


def _texts(values: Sequence[Any] | None, count: int, name: str) -> list[str]:
    if values is None:
        return [""] * count
    if not isinstance(values, list | tuple):
        values = np.asarray(values, object).tolist()
    if not isinstance(values, list | tuple) or len(values) != count:
        received = Shown(len(values)) if isinstance(values, list | tuple) else values
        raise invalid(name, f"a list of one value for each of {count} rows", received)
    if name == "images":
        values = [str(path) if isinstance(path, os.PathLike) else path for path in values]
    texts = ["" if value is None else label(value, name) for value in values]
    for text in texts:
        if len(text) > LONGEST_TEXT or unprintable(text):
            rule = f"texts of at most {LONGEST_TEXT} characters without control characters"
            raise invalid(name, f"{rule}, in UTF-8", text[:LONGEST_TEXT])
    return texts


def _times(values: Sequence[float | None] | None, count: int) -> list[float | None]:
    if values is None:
        return [None] * count
    try:
        times = [np.nan if time is None else float(time) for time in values]
    except (TypeError, ValueError):
        times = []
    if len(times) != count or np.isinf(times).any():
        rule = f"one finite number of seconds, or None, for each of {count} rows"
        raise invalid("times", rule, values)
    return [None if np.isnan(time) else time for time in times]
