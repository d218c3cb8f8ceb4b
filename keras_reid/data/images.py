"""Person images as parallel columns: path, identity, camera and further labels."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, counted, invalid, printable
from keras_reid.names import normalized_labels

TRACKLET = "tracklet"  # the column
ORIENTATION = "exif_orientation"  # the column of images that decode


@dataclass(frozen=True, eq=False, repr=False)
class PersonImages:
    """Image i is the file `path[i]`, shows `identity[i]` and was taken by `camera[i]`.

    Args:
        path: (n,) file names; a leading `~` is the home folder.
        identity: (n,) integer or text labels. Text is kept in Unicode NFC. 0 and −1 have no special
            meaning.
        camera: (n,) integer or text labels, or None for data without cameras. Without cameras,
            evaluation compares every query with every gallery image.
        columns: further arrays (n, …) by name, which become labels of the batches. "keypoints"
            (n, k, 3) moves with the pixels and becomes an input, see `keras_reid.data.keypoints`.
            "tracklet" (n,) numbers the tracklets; the images of a tracklet, in their order, show
            one person in one camera. `keras_reid.data.readable` adds "exif_orientation" (n,),
            which selects the decoder.
        distractor: (n,) booleans: gallery images that show no person of the data set. They match
            no query, are not trained on and are no leak. Default: none.

    Raises:
        InputError: columns of different lengths or of other types; a tracklet with several persons
            or cameras.
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
            raise invalid("columns", "without the names of labels", taken[0], "Rename it.")
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
            counted(len(np.unique(self.identity)), "identity"),
            "no cameras" if self.camera is None else counted(cameras, "camera"),
        ]
        return f"PersonImages({', '.join(parts)})"

    @property
    def checked(self) -> bool:
        """True if all files decode: the result of `keras_reid.data.readable`."""
        return ORIENTATION in self.columns

    @property
    def unlabeled(self) -> np.ndarray:
        """Booleans (n,), all False: readers leave unlabeled images out."""
        return np.zeros(len(self), bool)

    @property
    def has_tracklets(self) -> bool:
        """True with a column "tracklet"."""
        return TRACKLET in self.columns

    @property
    def owner(self) -> np.ndarray:
        """Index (n,), 0 to t − 1, of the tracklet of each image, in the order of their numbers.

        Without a column "tracklet", each image is a tracklet.
        """
        return self._tracklets[1]

    @property
    def tracklet_rows(self) -> list[np.ndarray]:
        """Rows of each of the t tracklets, in the order of `owner`."""
        return _rows_of(self.owner)

    def per_tracklet(self) -> "PersonImages":
        """Return the first image of each of the t tracklets, in the order of `owner`.

        Its identity and camera are those of the tracklet. Without a column "tracklet", return all.
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

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sorted labels (c,) and int32 indices (n,): `names[index[i]] == identity[i]`."""
        names, index = np.unique(self.identity, return_inverse=True)
        return names, index.astype(np.int32)


@dataclass(frozen=True, eq=False)
class ReidDataset:
    """Named data set of up to three parts, each optional."""

    name: str
    train: PersonImages | None
    query: PersonImages | None
    gallery: PersonImages | None

    def parts(self) -> dict[str, PersonImages]:
        """Return the existing parts in the order train, query, gallery."""
        parts = ("train", "query", "gallery")
        return {name: part for name in parts if (part := getattr(self, name)) is not None}

    def map(self, change: Callable[[PersonImages], PersonImages]) -> "ReidDataset":
        """Return the data set of the changed parts."""
        parts: dict[str, Any] = {name: change(part) for name, part in self.parts().items()}
        return replace(self, **parts)

    def hold_out(self, fraction: float, seed: int = 0) -> "ReidDataset":
        """Move a fraction of the training identities to a hold-out set, as query and gallery.

        Every camera gives one random query of each of these identities if the gallery keeps an
        image of another camera for each query. Without cameras, one image is a query. Identities
        without such a pair stay in training.

        Args:
            fraction: share of the identities with a pair, in (0, 1).
            seed: of the random choice.

        Raises:
            InputError: the data set has query or gallery images, or no training images; fewer than
                two identities to hold out or to train on.
        """
        checks.within("(0, 1)", "0.2 is usual.", fraction=fraction)
        images = self.train
        if self.query is not None or self.gallery is not None or images is None:
            parts = ", ".join(self.parts())
            raise InputError(
                f"With `holdout`, {self.name} must have training images only, got {parts}. Leave "
                "it out.",
                "holdout",
            )
        rng = np.random.default_rng(seed)
        names, identity = images.classes()
        queries = [_queries(images, rows, rng) for rows in _rows_of(identity)]
        candidates = rng.permutation([i for i, rows in enumerate(queries) if rows])
        held = candidates[: round(fraction * len(candidates))]
        if len(held) < 2 or len(names) - len(held) < 2:
            received = f"{fraction:g} of {len(candidates)}, in {counted(len(names), 'identity')}"
            rule = "a fraction that holds out two identities or more and leaves two"
            raise invalid("holdout", rule, Shown(received), "Add images.")
        aside = np.isin(identity, held)
        is_query = np.zeros(len(images), bool)
        is_query[[row for i in held for row in queries[i]]] = True
        return ReidDataset(
            self.name, images[~aside], images[aside & is_query], images[aside & ~is_query]
        )

    def all_to_train(self) -> "ReidDataset":
        """Return a data set that trains on the images of all parts except distractors."""
        images = joined(*self.parts().values())
        return ReidDataset(self.name, images[~images.distractor], None, None)


def _rows_of(owner: np.ndarray) -> list[np.ndarray]:
    """Return the row indices of each of 0 … t − 1; no group is empty."""
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])


def _queries(images: PersonImages, rows: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Return the query rows of an identity; its other rows contain a match for each of them."""
    rows = rng.permutation(rows)
    if images.camera is None:
        return rows[:1].tolist() if len(rows) > 1 else []
    cameras = images.camera[rows]
    queries: list[int] = []
    for camera in dict.fromkeys(cameras.tolist()):
        tried = [*queries, int(rows[cameras == camera][0])]
        left = cameras[~np.isin(rows, tried)]
        if all((left != images.camera[row]).any() for row in tried):
            queries = tried
    return queries


def joined(*parts: PersonImages) -> PersonImages:
    """Return the images of all parts; labels that are text in one part become text in all.

    Cameras and columns that a part lacks are left out. So are tracklets, because parts number them
    separately.
    """
    shared = set.intersection(*(set(part.columns) for part in parts)) - {TRACKLET}
    cameras = [part.camera for part in parts if part.camera is not None]
    return PersonImages(
        np.concatenate([part.path for part in parts]),
        _joined_labels([part.identity for part in parts]),
        _joined_labels(cameras) if len(cameras) == len(parts) else None,
        {name: np.concatenate([part.columns[name] for part in parts]) for name in shared},
        distractor=np.concatenate([part.distractor for part in parts]),
    )


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


def _joined_labels(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate labels as text if one of them is text."""
    text = any(part.dtype.kind == "U" for part in labels)
    return np.concatenate([part.astype(str) if text else part for part in labels])


def name_some(names: Sequence[object], most: int = 5) -> str:
    """Return a list for messages, such as `a, b, c and 7 more`."""
    rest = len(names) - most
    first = ", ".join(str(name) for name in names[:most])
    return f"{first} and {rest} more" if rest > 0 else first
