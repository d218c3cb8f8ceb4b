"""Identities and cameras of query and gallery as integer codes that can be compared."""

from collections.abc import Sequence

import numpy as np

from keras_reid.errors import InputError

Labels = Sequence | np.ndarray

NOBODY = -1


def identity_codes(
    query: Labels, gallery: Labels, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes (q,) and (g,), equal where the identity is; NOBODY for gallery identity -1."""
    query, gallery = _pair(query, gallery, shape, "identities")
    query_codes, gallery_codes = _codes(query, gallery)
    gallery_codes[gallery == ("-1" if gallery.dtype.kind == "U" else -1)] = NOBODY
    return query_codes, gallery_codes


def camera_codes(
    query: Labels | None,
    gallery: Labels | None,
    shape: tuple[int, int],
    protocol: str,
    ignored: bool,
) -> tuple[tuple[np.ndarray, np.ndarray], list]:
    """Codes (q,) and (g,), equal where the camera is, and the camera of each code.

    Where they are ignored, all queries are of one camera and the gallery is of another.
    """
    if ignored:
        return (np.zeros(shape[0], int), np.ones(shape[1], int)), ["query", "gallery"]
    if query is None or gallery is None:
        raise InputError(
            f"Protocol {protocol!r} needs the cameras of query and gallery, received none for "
            f"the {'query' if query is None else 'gallery'}: pass query_cams and gallery_cams, "
            "or ask for protocol='no-camera'."
        )
    both = _pair(query, gallery, shape, "cameras")
    return _codes(*both), np.unique(np.concatenate(both)).tolist()


def _codes(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = np.unique(np.concatenate([query, gallery]), return_inverse=True)[1]
    return codes[: len(query)], codes[len(query) :]


def _pair(
    query: Labels, gallery: Labels, shape: tuple[int, int], what: str
) -> tuple[np.ndarray, np.ndarray]:
    first = column(query, shape[0], f"query {what}")
    second = column(gallery, shape[1], f"gallery {what}")
    if first.dtype.kind != second.dtype.kind:
        raise InputError(
            f"Query and gallery {what} must be of one kind, received {first.dtype} and "
            f"{second.dtype}: make both integers or both strings."
        )
    return first, second


def column(values: Labels, length: int, what: str) -> np.ndarray:
    """The values as int64 or str (length,)."""
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
    return column if column.dtype.kind == "U" else column.astype(np.int64)
