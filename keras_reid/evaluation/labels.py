"""Identities and cameras of query and gallery images, as integer codes."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.names import normalized_labels

Column = Sequence[Any] | np.ndarray

UNLABELED = -1  # identity in arrays, and code, of unlabeled gallery images


class Labeled(Protocol):
    """Identities and cameras of images: `Labels`, `data.PersonImages`, `StoredFeatures`.

    Unlabeled gallery images are left out of every ranking, neither match nor mismatch. In arrays
    their identity is −1, as in Market-1501. An attribute `unlabeled`, a mask (n,), replaces this
    rule: in `PersonImages`, 0 and −1 have no special meaning.
    """

    @property
    def identity(self) -> Any: ...

    @property
    def camera(self) -> Any: ...


class Labels(NamedTuple):
    """Labels of one set of n images.

    Attributes:
        identity: (n,) integers or strings; −1 in a gallery is unlabeled, see `Labeled`.
        camera: (n,) integers or strings, or None for protocols without cameras.

    Example:
        >>> Labels(identity=["a", "b"], camera=[0, 1]).camera
        [0, 1]
    """

    identity: Column
    camera: Column | None = None


class Codes(NamedTuple):
    """Labels of query (q,) and gallery (g,) as integers; equal labels have equal integers.

    Attributes:
        query, gallery: identities; UNLABELED for unlabeled gallery images.
        query_camera, gallery_camera: cameras. Gallery images of the query's identity and camera
            are junk.
        cameras: the camera of each code.
    """

    query: np.ndarray
    gallery: np.ndarray
    query_camera: np.ndarray
    gallery_camera: np.ndarray
    cameras: list[Any]

    def masks(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for some queries two masks (b, g): images of their identity, and junk."""
        part = slice(start, stop)
        same = self.query[part, None] == self.gallery
        here = self.query_camera[part, None] == self.gallery_camera
        return same, (same & here) | (self.gallery == UNLABELED)

    def part(self, query: np.ndarray, gallery: np.ndarray) -> "Codes":
        """Return the codes of some rows of query and gallery."""
        cameras = self.query_camera[query], self.gallery_camera[gallery]
        return Codes(self.query[query], self.gallery[gallery], *cameras, self.cameras)

    def swapped(self) -> "Codes":
        """Return the codes with query and gallery exchanged."""
        return Codes(self.gallery, self.query, self.gallery_camera, self.query_camera, self.cameras)


def unlabeled(labels: Labeled, identity: np.ndarray) -> np.ndarray:
    """Return a mask (n,) of the unlabeled images, see `Labeled`; `identity` is their column."""
    marked = str(UNLABELED) if identity.dtype.kind == "U" else UNLABELED
    return np.asarray(getattr(labels, "unlabeled", identity == marked), bool)


def codes(
    query: Column, gallery: Column, shape: tuple[int, int], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the codes of query (q,) and gallery (g,), and the value of each code.

    Args:
        query: values of the q query images.
        gallery: values of the g gallery images.
        shape: (q, g).
        name: of the values, for errors.

    Raises:
        InputError: no values, another number of them, or types other than integers and strings.
    """
    first = column(query, shape[0], f"query {name}")
    second = column(gallery, shape[1], f"gallery {name}")
    if first.dtype.kind != second.dtype.kind:
        types = Shown(f"{first.dtype} and {second.dtype}")
        raise InputError(
            f"Query and gallery {name} must have the same type, integers or strings, got {types}."
        )
    values, codes = np.unique(np.concatenate([first, second]), return_inverse=True)
    return codes[: len(first)], codes[len(first) :], values


def column(values: Column | None, length: int, name: str) -> np.ndarray:
    """Return the values as int64 or str (length,), text in Unicode NFC."""
    if values is None:
        fix = "Pass them, or choose protocol='no-camera'."
        raise InputError(f"The protocol needs {name}, got none. {fix}")
    try:
        column = np.asarray(values)
        column = np.array(column.tolist()) if column.dtype.kind == "O" else column
        column = np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column
    except ValueError:  # ragged, or bytes that are not text
        column = np.empty((0, 0), object)
    if column.shape != (length,) or column.dtype.kind not in "iuU":
        received = Shown(f"{column.dtype} {column.shape}")
        raise invalid(name, f"integers or strings of the shape ({length},)", received)
    return normalized_labels(column) if column.dtype.kind == "U" else checks.int64(column, name)
