"""What a gallery holds, which part of it is looked at, what is found, and what a back end does."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

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

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == NO_FILTER


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


class Store(Protocol):
    """What a back end does; rows are checked before they come here."""

    def settings(self) -> dict[str, Any]:
        """What `save_settings` wrote; empty in a new gallery."""

    def save_settings(self, settings: dict[str, Any]) -> None: ...

    def add(self, rows: Rows) -> None:
        """Returns when the rows are durable."""

    def replace(self, images: Sequence[str], rows: Rows) -> None:
        """Erase the rows of these image references and add `rows`, all at once.

        Closing the gallery erases the old rows from its files.
        """

    def remove(self, identity: str) -> int:
        """Erases the rows of an identity, durably, and returns how many there were."""

    def count(self) -> int: ...

    def identities(self) -> dict[str, int]:
        """How many rows each identity has."""

    def held(self, images: Sequence[str]) -> dict[str, Labels]:
        """Return the rows of those images that the gallery holds, by the passed reference.

        Without a row of the same reference, a row with the same reference in Unicode NFC counts.
        """

    def search(self, embeddings: np.ndarray, k: int, filter: Filter) -> list[list[SearchResult]]:
        """The k nearest rows of each query, nearest first."""

    def embeddings(self, images: Sequence[str]) -> np.ndarray:
        """Return embeddings (n, d) of enrolled images, by their references in the gallery."""

    def of(self, identities: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Return embeddings (n, d) of all images of these identities, and the identity of each."""

    def described(self, filter: Filter) -> Iterator[tuple[SearchResult, str]]:
        """The rows that have attributes, as hits without a distance (0), and these."""

    def stats(self) -> dict[str, Any]:
        """Facts about the back end, by name."""

    def close(self) -> None: ...
