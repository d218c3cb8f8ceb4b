"""Rows of a gallery, filters, and search results."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import InputError, Shown, invalid, printable
from keras_reid.names import normalized, repeated

LONGEST_TEXT = 1000  # characters; Milvus holds 4,096 bytes
NO_TIME = -1e300  # of rows without a time in Milvus: servers before 2.5 have no nulls


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
    """Rows that a search compares; None applies no limit. Cameras are compared in Unicode NFC.

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

    def without(self, camera: str) -> "Filter":
        """Return the filter that also excludes one camera."""
        if not camera:
            return self
        return Filter(self.cameras, (*(self.not_cameras or ()), camera), self.after, self.before)

    def condition(self, literal: Callable[[Any], str]) -> str:
        """Return the filter as a condition of SQL or Milvus.

        Args:
            literal: function that writes a tuple of texts in that language.
        """
        parts = []
        if self.cameras is not None:
            parts.append(f"camera in {literal(self.cameras)}")
        if self.not_cameras:
            parts.append(f"camera not in {literal(self.not_cameras)}")
        if self.after is not None:
            parts.append(f"time >= {float(self.after)!r}")
        if self.before is not None:
            parts.append(f"time < {float(self.before)!r} and time > {NO_TIME!r}")
        return " and ".join(parts)


NO_FILTER = Filter()


def seconds(text: str | None) -> float | None:
    """Return seconds since 1970 from a number or ISO 8601, in local time unless it has a zone."""
    if not text:
        return None
    for read in (float, lambda text: datetime.fromisoformat(text).timestamp()):
        with suppress(ValueError):
            return read(text)
    raise InputError(f"Times are seconds since 1970 or ISO 8601 (2026-01-31T12:00), got {text!r}.")


def label(value: Any, name: str) -> str:
    """Return a label that is a text or an integer as text.

    Raises:
        InputError: another value, such as NaN, or 1.0 for 1, from a table with empty cells.
    """
    if isinstance(value, str | int | np.integer) and not isinstance(value, bool):
        return str(value)
    raise invalid(name, "texts or integers", value, "Convert them first.")


def checked_rows(
    count: int,
    identities: Sequence[Any],
    cameras: Sequence[Any] | None,
    times: Sequence[float | None] | None,
    images: Sequence[str],
    digests: Sequence[str] | None = None,
) -> list[Row]:
    """Return rows of columns (n,); the arguments are those of `Gallery.enrol`.

    Raises:
        InputError: columns that do not fit, or an image that occurs twice.
    """
    blank = [""] * count
    rows = zip(
        references(images, count),
        names(identities, count, "identities", empty=False),
        blank if cameras is None else names(cameras, count, "cameras"),
        [None] * count if times is None else _times(times, count),
        blank,
        blank if digests is None else _texts(digests, count, "digests"),
        strict=True,
    )
    return [Row(*row) for row in rows]


def names(values: Sequence[Any], count: int, name: str, empty: bool = True) -> list[str]:
    """Return labels (n,) as texts in Unicode NFC."""
    texts = [normalized(text) for text in _texts(values, count, name)]
    if not empty and "" in texts:
        raise invalid(name, "not empty", Shown(f"'' in row {texts.index('')}"))
    return texts


def references(values: Sequence[str], count: int) -> list[str]:
    """Return image references (n,); raise for an empty one or one that occurs twice."""
    images = _texts(values, count, "images")
    image = "" if "" in images else repeated(images)
    if image is not None:
        raise invalid("images", "not empty and distinct", Shown(f"{image!r} (empty or repeated)"))
    return images


def unprintable(text: str) -> bool:
    """Return whether a text has control characters or bytes that are not UTF-8."""
    return printable(text) != text or "\n" in text or "\t" in text


def _texts(values: Sequence[Any], count: int, name: str) -> list[str]:
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


def _times(values: Sequence[float | None], count: int) -> list[float | None]:
    try:
        times = [np.nan if time is None else float(time) for time in values]
    except (TypeError, ValueError):
        times = []
    if len(times) != count or np.isinf(times).any():
        rule = f"one finite number of seconds, or None, for each of {count} rows"
        raise invalid("times", rule, values)
    return [None if np.isnan(time) else time for time in times]
