"""Person images as parallel columns: path, identity, camera and further labels."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, counted, invalid, printable
from keras_reid.names import normalized_labels

TRACKLET = "tracklet"  # the column
SOURCE = "source"  # the column of a union of data sets
ORIENTATION = "exif_orientation"  # the column of images that decode


@dataclass(frozen=True, eq=False, repr=False)
class PersonImages:
    """Person images: image i is the file `path[i]` and shows `identity[i]` in `camera[i]`.

    Args:
        path: (n,) file names; a leading `~` is the home folder.
        identity: (n,) integer or text labels. Text is kept in Unicode NFC. 0 and −1 have no special
            meaning. The empty text marks an image without identity.
        camera: (n,) integer or text labels, or None if there are no cameras. Evaluation then
            compares every query with every gallery image.
        columns: further arrays (n, …) by name, which become labels of the batches. "keypoints"
            (n, k, 3) moves with the pixels and becomes an input, see `keras_reid.data.keypoints`.
            "tracklet" (n,) numbers the tracklets; the images of a tracklet, in their order, show
            one person in one camera. "source" (n,) is the name of the data set, see
            `keras_reid.data.union`. `keras_reid.data.readable` adds "exif_orientation" (n,), which
            selects the decoder.
        distractor: (n,) booleans: gallery images that show no person of the data set. They match
            no query, are not trained on and do not count as leaks. Default: no distractors.

    Raises:
        InputError: columns of different lengths or of other types; a tracklet with several persons
            or cameras.

    Example:
        >>> images = PersonImages(["a.jpg", "b.jpg", "c.jpg"], [7, 7, 9], [1, 2, 1])
        >>> images
        PersonImages(3 images, 2 identities, 2 cameras)
        >>> images[images.camera == 1].path.tolist()
        ['a.jpg', 'c.jpg']
        >>> images.classes()[1].tolist()
        [0, 0, 1]
    """

    path: np.ndarray
    identity: np.ndarray
    camera: np.ndarray | None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    distractor: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        paths = [os.path.expanduser(p) for p in self.path]
        _check_names(paths)
        distractor = np.asarray(self.distractor, bool)
        labels = {
            "identity": _labels(self.identity, "identity"),
            "camera": None if self.camera is None else _labels(self.camera, "camera"),
            "distractor": distractor if distractor.size else np.zeros(len(paths), bool),
        }
        columns = {name: np.asarray(values) for name, values in self.columns.items()}
        if taken := sorted({"path", *labels} & {*columns}):
            rule = f"other columns than path, {', '.join(labels)}"
            raise invalid("columns", rule, taken[0], "Rename it.")
        for name, values in (*labels.items(), *columns.items()):
            if values is not None and values.shape[:1] != (len(paths),):
                received = Shown(f"shape {values.shape} for {counted(len(paths), 'image')}")
                raise InputError(f"`{name}` must have one entry per image, got {received}.", name)
        for name, value in dict(labels, path=np.array(paths, dtype=str), columns=columns).items():
            object.__setattr__(self, name, value)  # the dataclass is frozen
        if self.has_tracklets:
            self._check_tracklets()

    def _check_tracklets(self) -> None:
        first, owner = self._tracklets
        for name, values in (("identity", self.identity), ("camera", self.camera)):
            if values is None:
                continue
            other = np.flatnonzero(values != values[first][owner])
            if len(other):
                number = self.columns[TRACKLET][other[0]]
                received = Shown(f"several in tracklet {number}")
                raise invalid(name, "the same in all images of a tracklet", received)

    def require_cameras(self, fix: str = "") -> np.ndarray:
        """Return the cameras (n,).

        Args:
            fix: last sentence of the error message.

        Raises:
            InputError: the images have no cameras.
        """
        if self.camera is None:
            raise invalid("images", "images with cameras", self, fix)
        return self.camera

    def __len__(self) -> int:
        return len(self.path)

    def __getitem__(self, rows: Any) -> "PersonImages":
        """Return the images at an index, a slice, an array of indices or a boolean mask."""
        rows = np.atleast_1d(np.arange(len(self))[rows])
        camera = None if self.camera is None else self.camera[rows]
        columns = {name: values[rows] for name, values in self.columns.items()}
        labels = self.identity[rows], camera, columns, self.distractor[rows]
        return PersonImages(self.path[rows], *labels)

    def with_columns(self, **columns: Any) -> "PersonImages":
        """Return the images with additional or replaced columns."""
        return replace(self, columns={**self.columns, **columns})

    def __repr__(self) -> str:
        cameras = 0 if self.camera is None else len(np.unique(self.camera))
        parts = [
            counted(len(self), "image"),
            *([counted(len(self._tracklets[0]), "tracklet")] if self.has_tracklets else []),
            counted(len(self.classes()[0]), "identity"),
            *([f"{self.unlabeled.sum()} without identity"] if self.unlabeled.any() else []),
            "no cameras" if self.camera is None else counted(cameras, "camera"),
        ]
        return f"PersonImages({', '.join(parts)})"

    @property
    def checked(self) -> bool:
        """True for images that `keras_reid.data.readable` returned: all their files decode."""
        return ORIENTATION in self.columns

    @property
    def unlabeled(self) -> np.ndarray:
        """Booleans (n,), True for images without identity: the empty text."""
        return np.array(self.identity == "") & np.ones(len(self), bool)

    @property
    def has_tracklets(self) -> bool:
        """True if there is a column "tracklet"."""
        return TRACKLET in self.columns

    @property
    def owner(self) -> np.ndarray:
        """Index (n,), 0 to t − 1, of the tracklet of each image.

        Tracklets are in the order of the column "tracklet". If there is no such column, each image
        is a tracklet.
        """
        return self._tracklets[1]

    @property
    def tracklet_rows(self) -> list[np.ndarray]:
        """Rows of each of the t tracklets, in the order of `owner`."""
        return rows_of(self.owner)

    def per_tracklet(self) -> "PersonImages":
        """Return the first image of each of the t tracklets, in the order of `owner`.

        All images of a tracklet have the same identity and camera. If there is no column
        "tracklet", return all images.
        """
        return self[self._tracklets[0]] if self.has_tracklets else self

    @cached_property
    def _tracklets(self) -> tuple[np.ndarray, np.ndarray]:
        """First row of each tracklet (t,), and tracklet of each row (n,)."""
        number = self.columns.get(TRACKLET, np.arange(len(self)))
        _, first, owner = np.unique(number, return_index=True, return_inverse=True)
        return first, owner

    def without(self, *columns: str) -> "PersonImages":
        """Return the images without these columns."""
        kept = {name: values for name, values in self.columns.items() if name not in columns}
        return replace(self, columns=kept)

    def anonymous(self) -> "PersonImages":
        """Return the images without identities."""
        return replace(self, identity=np.full(len(self), ""))

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sorted labels (c,) and int32 indices (n,): `names[index[i]] == identity[i]`.

        Unlabeled images have different negative indices, `−1 − i`.
        """
        labeled, indices = ~self.unlabeled, -1 - np.arange(len(self), dtype=np.int32)
        names, index = np.unique(self.identity[labeled], return_inverse=True)
        indices[labeled] = index
        return names, indices


def rows_of(owner: np.ndarray) -> list[np.ndarray]:
    """Return the row indices of each tracklet, from 0 to t − 1.

    Args:
        owner: (n,) number of the tracklet of each row; each of 0 to t − 1 occurs.
    """
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])


def _check_names(paths: list[str]) -> None:
    try:
        "".join(paths).encode()
    except UnicodeEncodeError:
        wrong = next(path for path in paths if printable(path) != path)
        raise invalid(
            "path", "text in UTF-8, which TensorFlow opens", wrong, "Rename it."
        ) from None


def _labels(values: Any, column: str) -> np.ndarray:
    labels = np.asarray(values)
    if labels.dtype.kind == "U":
        return normalized_labels(labels)
    if labels.dtype.kind not in "iu" and labels.size:
        raise invalid(column, "integers or text", labels.flat[0], "Convert the column.")
    return checks.int64(labels, column)
