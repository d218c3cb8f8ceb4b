"""Who is on the images of query and gallery, and which cameras took them, as integer codes."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError
from keras_reid.names import normalized_labels

Column = Sequence[Any] | np.ndarray

NOBODY = -1  # the code of unlabeled gallery images

UNLABELED = -1  # the identity that marks them in arrays


class Labeled(Protocol):
    """Identities and cameras of images: `Labels`, `data.PersonImages`, `StoredFeatures`.

    Images of a gallery that are unlabeled are left out of every ranking, neither match nor
    mismatch. In arrays the identity −1 marks them, as in Market-1501. An attribute `unlabeled`, a
    mask (n,), replaces this rule: in `PersonImages` no image is, because readers leave them out.
    """

    @property
    def identity(self) -> Any: ...

    @property
    def camera(self) -> Any: ...


class Labels(NamedTuple):
    """Labels of one set of n images.

    Attributes:
        identity: (n,) integers or strings; −1 in a gallery is unlabeled, see `Labeled`.
        camera: (n,) integers or strings, or None for protocols that do not look at cameras.
    """

    identity: Column
    camera: Column | None = None


class Codes(NamedTuple):
    """Labels of query (q,) and gallery (g,) as integers, equal where the labels are.

    Attributes:
        query, gallery: identities; NOBODY for unlabeled gallery images.
        query_camera, gallery_camera: cameras. Where they are not looked at, all queries are of
            one camera and the gallery is of another.
        cameras: the camera of each code.
    """

    query: np.ndarray
    gallery: np.ndarray
    query_camera: np.ndarray
    gallery_camera: np.ndarray
    cameras: list[Any]


def codes(query: Labeled, gallery: Labeled, shape: tuple[int, int], without_cameras: bool) -> Codes:
    """The labels of both sides, which must be as many as the shape says, and of one kind."""
    identities = _pair(query.identity, gallery.identity, shape, "identities")
    coded = _codes(*identities)
    coded[1][unlabeled(gallery, identities[1])] = NOBODY
    if without_cameras:
        return Codes(*coded, np.zeros(shape[0], int), np.ones(shape[1], int), ["query", "gallery"])
    for side, labels in (("query", query), ("gallery", gallery)):
        if labels.camera is None:
            raise InputError(
                f"This protocol needs the cameras of query and gallery, received none for the "
                f"{side}: pass Labels(identity, camera), or ask for protocol='no-camera'."
            )
    cameras = _pair(query.camera, gallery.camera, shape, "cameras")
    return Codes(*coded, *_codes(*cameras), np.unique(np.concatenate(cameras)).tolist())


def unlabeled(labels: Labeled, identity: np.ndarray) -> np.ndarray:
    """Mask (n,) of the unlabeled images, see `Labeled`; `identity` is their column."""
    marked = str(UNLABELED) if identity.dtype.kind == "U" else UNLABELED
    return np.asarray(getattr(labels, "unlabeled", identity == marked), bool)


def _codes(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = np.unique(np.concatenate([query, gallery]), return_inverse=True)[1]
    return codes[: len(query)], codes[len(query) :]


def _pair(
    query: Column, gallery: Column, shape: tuple[int, int], what: str
) -> tuple[np.ndarray, np.ndarray]:
    first = column(query, shape[0], f"query {what}")
    second = column(gallery, shape[1], f"gallery {what}")
    if first.dtype.kind != second.dtype.kind:
        raise InputError(
            f"Query and gallery {what} must be of one kind, received {first.dtype} and "
            f"{second.dtype}: make both integers or both strings."
        )
    return first, second


def column(values: Column, length: int, what: str) -> np.ndarray:
    """Return the values as int64 or str (length,), text in Unicode NFC."""
    try:
        column = np.asarray(values)
        column = np.array(column.tolist()) if column.dtype.kind == "O" else column
        column = np.char.decode(column, "utf-8") if column.dtype.kind == "S" else column
    except ValueError:  # ragged, or bytes that are not text
        column = np.empty((0, 0), object)
    if column.ndim == 1 and len(column) != length:
        raise InputError(
            f"The {what} must be as many as the images, received {len(column)} for {length} "
            "images: pass the column that belongs to these distances or features."
        )
    if column.ndim != 1 or column.dtype.kind not in "iuU":
        raise InputError(
            f"The {what} are one column of integers or strings, received a {column.ndim}-D array "
            f"of {column.dtype}: convert them."
        )
    return normalized_labels(column) if column.dtype.kind == "U" else checks.int64(column, what)
