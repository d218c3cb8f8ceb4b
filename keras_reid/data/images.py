"""Which image shows whom, seen by which camera, as parallel columns."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_reid.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class PersonImages:
    """Image i is the file `path[i]`, shows `identity[i]` and was taken by `camera[i]`.

    Args:
        path: (n,) file names.
        identity: (n,) integer or text labels, as they stand on disk.
        camera: (n,) integers, or None for data without cameras. None is a mode of its own:
            evaluation then compares every query with every gallery image.
        columns: what else is known of each image, arrays (n, …) by name: they become labels of
            the batches, but "keypoints" (n, k, 3), which moves with the pixels and becomes an
            input, see `keras_reid.data.keypoints`.

    Raises:
        InputError: the columns differ in length, or hold something else than the above.
    """

    path: np.ndarray
    identity: np.ndarray
    camera: np.ndarray | None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A frozen dataclass is filled through object.__setattr__; the caller may pass lists.
        object.__setattr__(self, "path", np.array([os.fspath(p) for p in self.path], dtype=str))
        object.__setattr__(self, "identity", _labels(self.identity))
        if self.camera is not None:
            object.__setattr__(self, "camera", _integers(self.camera, "camera"))
        lengths = {len(self.path), len(self.identity)}
        if self.camera is not None:
            lengths.add(len(self.camera))
        if len(lengths) > 1:
            raise InputError(
                f"path, identity and camera must have one entry per image, got {len(self.path)}, "
                f"{len(self.identity)} and {'None' if self.camera is None else len(self.camera)}: "
                "pass columns of one length, or camera=None for data without cameras"
            )
        columns = {name: np.asarray(values) for name, values in self.columns.items()}
        object.__setattr__(self, "columns", columns)
        for name, values in columns.items():
            if name in ("path", "identity", "camera") or values.shape[:1] != (len(self),):
                raise InputError(
                    f"a further column has a name of its own and one entry per image: received "
                    f"{name!r} of shape {values.shape} for {len(self)} images; pass (n, …)"
                )

    def __len__(self) -> int:
        return len(self.path)

    def __getitem__(self, rows: Any) -> "PersonImages":
        """The images at an index, a slice, an array of indices or a boolean mask."""
        rows = np.atleast_1d(np.arange(len(self))[rows])
        camera = None if self.camera is None else self.camera[rows]
        columns = {name: values[rows] for name, values in self.columns.items()}
        return PersonImages(self.path[rows], self.identity[rows], camera, columns)

    def with_columns(self, **columns: Any) -> "PersonImages":
        """The same images with these columns beside those that they have."""
        return PersonImages(self.path, self.identity, self.camera, {**self.columns, **columns})

    def __repr__(self) -> str:
        cameras = "no" if self.camera is None else len(np.unique(self.camera))
        return (
            f"PersonImages({len(self)} images, {len(np.unique(self.identity))} identities, "
            f"{cameras} cameras)"
        )

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """`names[index[i]] == identity[i]`: sorted labels (c,) and int32 indices (n,)."""
        return class_indices(self.identity)


@dataclass(frozen=True, eq=False)
class ReidDataset:
    """A data set by name, with the parts that it has: None stands for a part that is not there."""

    name: str
    train: PersonImages | None
    query: PersonImages | None
    gallery: PersonImages | None

    def parts(self) -> dict[str, PersonImages]:
        """The parts that are there, in the order train, query, gallery."""
        parts = {"train": self.train, "query": self.query, "gallery": self.gallery}
        return {part: images for part, images in parts.items() if images is not None}


def class_indices(identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`names[index[i]] == identity[i]`: sorted labels (c,) and int32 indices (n,)."""
    names, index = np.unique(identity, return_inverse=True)
    return names, index.astype(np.int32)


def _labels(values: Any) -> np.ndarray:
    labels = np.asarray(values)
    return labels if labels.dtype.kind == "U" else _integers(labels, "identity")


def _integers(values: Any, column: str) -> np.ndarray:
    numbers = np.asarray(values)
    if numbers.dtype.kind not in "iu" and numbers.size:
        what = "integers or text" if column == "identity" else "integers"
        raise InputError(
            f"{column} must hold {what}, got values such as {numbers.flat[0]!r}: "
            "convert the column before building PersonImages"
        )
    return numbers.astype(np.int64)
