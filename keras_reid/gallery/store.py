"""Rows of a gallery, filters, and search results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_reid.errors import InputError
from keras_reid.names import normalized


class SearchResult(NamedTuple):
    """A gallery image that was found.

    `distance` is `|x − y|`; `reranked` the distance by which re-ranking ordered the hits, of no
    meaning beyond their order, or None. An unknown camera is "", an unknown time None.
    """

    image: str
    identity: str
    camera: str
    time: float | None
    distance: float
    reranked: float | None = None


def label(value: Any, name: str) -> str:
    """Return a label that is a text or an integer as text.

    Raises:
        InputError: another value, such as NaN, or 1.0 for 1, from a table with empty cells.
    """
    if isinstance(value, str | int | np.integer) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"`{name}` must be texts or integers, got {value!r}. Convert them first.")


@dataclass(frozen=True)
class Filter:
    """The rows that a search looks at; None looks at all. Cameras are compared in Unicode NFC.

    Attributes:
        cameras: of one of these cameras.
        not_cameras: of none of these.
        after, before: `after <= time < before`, in seconds; rows of unknown time are in no window.
    """

    cameras: Sequence[str | int] | None = None
    not_cameras: Sequence[str | int] | None = None
    after: float | None = None
    before: float | None = None

    def __post_init__(self) -> None:
        for name in ("cameras", "not_cameras"):
            value = getattr(self, name)
            if isinstance(value, str | bytes) or not isinstance(value, Iterable | None):
                raise InputError(
                    f"{name} is a list of cameras: received {value!r}; write [{value!r}]"
                )
            if value is not None:
                object.__setattr__(self, name, tuple(normalized(label(one, name)) for one in value))
        for name in ("after", "before"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value):
                raise InputError(f"{name} is a time in seconds or None: received {value}")

    def without(self, camera: str) -> "Filter":
        """The same rows but those of one camera."""
        if not camera:
            return self
        return Filter(self.cameras, (*(self.not_cameras or ()), camera), self.after, self.before)


NO_FILTER = Filter()


TEXTS = ("identity", "camera", "image", "attributes", "digest")


class Labels(NamedTuple):
    """Columns of a row without its embedding; see `Rows`."""

    image: str
    identity: str
    camera: str
    time: float | None
    attributes: str
    digest: str


@dataclass(frozen=True)
class Rows:
    """n rows: embeddings (n, d) float32, times (n,) float64 with NaN for unknown, and texts.

    `attributes` are the probabilities of the gallery's attributes, "0.91,0.02,…", or "". `digest`
    is that of the image file's content, or "" if it is unknown.
    """

    embedding: np.ndarray
    identity: list[str]
    camera: list[str]
    time: np.ndarray
    image: list[str]
    attributes: list[str]
    digest: list[str]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: Any) -> "Rows":
        chosen = np.arange(len(self))[index].tolist()
        texts = {name: [getattr(self, name)[i] for i in chosen] for name in TEXTS}
        return Rows(embedding=self.embedding[index], time=self.time[index], **texts)
