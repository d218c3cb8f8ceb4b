"""Which image shows whom, seen by which camera, as parallel columns."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, counted, printable
from keras_reid.names import normalized_labels

TRACKLET = "tracklet"  # the column
ORIENTATION = "exif_orientation"  # the column of images that are known to decode


@dataclass(frozen=True, eq=False, repr=False)
class PersonImages:
    """Image i is the file `path[i]`, shows `identity[i]` and was taken by `camera[i]`.

    Args:
        path: (n,) file names; a leading `~` is the home folder.
        identity: (n,) integer or text labels. Text is kept in Unicode NFC.
        camera: (n,) integer or text labels, or None for data without cameras. None is a mode of
            its own: evaluation then compares every query with every gallery image.
        columns: what else is known of each image, arrays (n, …) by name: they become labels of
            the batches, but "keypoints" (n, k, 3), which moves with the pixels and becomes an
            input, see `keras_reid.data.keypoints`, and "tracklet" (n,), a number for each tracklet:
            images of one number, in their order, show one person before one camera.
            `keras_reid.data.readable` adds "exif_orientation" (n,), by which files are decoded.
        distractor: (n,) booleans: gallery images of no person of the data set, which its reader
            marks. They match no query, are not trained on and are no leak. Default: none. Labels
            mean nothing else here: 0 and −1 are persons as all others.

    Raises:
        InputError: the columns differ in length, hold something else than the above, or a tracklet
            shows several persons or is of several cameras.
    """

    path: np.ndarray
    identity: np.ndarray
    camera: np.ndarray | None
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    distractor: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen

        paths = [os.path.expanduser(p) for p in self.path]
        _check_names(paths)
        put("path", np.array(paths, dtype=str))
        put("identity", _labels(self.identity, "identity"))
        if self.camera is not None:
            put("camera", _labels(self.camera, "camera"))
        put("columns", {name: np.asarray(values) for name, values in self.columns.items()})
        distractor = np.asarray(self.distractor, bool)
        put("distractor", distractor if distractor.size else np.zeros(len(self), bool))
        lists = {"identity": self.identity, "camera": self.camera, "distractor": self.distractor}
        if taken := sorted({"path", *lists} & {*self.columns}):
            raise InputError(
                f"`columns` must have other names than the labels, got {taken[0]!r}. Rename it."
            )
        for name, values in (*lists.items(), *self.columns.items()):
            if values is not None and values.shape[:1] != (len(self),):
                raise InputError(
                    f"`{name}` must have one entry per image, got shape {values.shape} for "
                    f"{counted(len(self), 'image')}. Pass columns of one length."
                )
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
                raise InputError(
                    f"a tracklet has one {name}: received several in tracklet {number}; give each "
                    "a number of its own"
                )

    def __len__(self) -> int:
        return len(self.path)

    def __getitem__(self, rows: Any) -> "PersonImages":
        """The images at an index, a slice, an array of indices or a boolean mask."""
        rows = np.atleast_1d(np.arange(len(self))[rows])
        camera = None if self.camera is None else self.camera[rows]
        columns = {name: values[rows] for name, values in self.columns.items()}
        return replace(
            self,
            path=self.path[rows],
            identity=self.identity[rows],
            camera=camera,
            columns=columns,
            distractor=self.distractor[rows],
        )

    def with_columns(self, **columns: Any) -> "PersonImages":
        """The same images with these columns beside those that they have."""
        return replace(self, columns={**self.columns, **columns})

    def __repr__(self) -> str:
        parts = [counted(len(self), "image")]
        if self.has_tracklets:
            parts.append(counted(len(self._tracklets[0]), "tracklet"))
        parts.append(counted(len(np.unique(self.identity)), "identity"))
        cameras = None if self.camera is None else len(np.unique(self.camera))
        parts.append("no cameras" if cameras is None else counted(cameras, "camera"))
        return f"PersonImages({', '.join(parts)})"

    @property
    def checked(self) -> bool:
        """Whether all files are known to decode, see `keras_reid.data.readable`."""
        return ORIENTATION in self.columns

    @property
    def unlabeled(self) -> np.ndarray:
        """(n,) booleans, all False: readers leave unlabeled images out."""
        return np.zeros(len(self), bool)

    @property
    def has_tracklets(self) -> bool:
        """Whether there is a column "tracklet"."""
        return TRACKLET in self.columns

    @property
    def owner(self) -> np.ndarray:
        """(n,) of 0 … t − 1: the tracklet of each image in the order of the numbers.

        Without a column "tracklet" each image is one.
        """
        return self._tracklets[1]

    @property
    def tracklet_rows(self) -> list[np.ndarray]:
        """The rows of each of the t tracklets, in the order of `owner`."""
        return _rows_of(self.owner)

    def per_tracklet(self) -> "PersonImages":
        """The first image of each of the t tracklets, in the order of `owner`.

        Its identity and camera are the tracklet's. Without a column "tracklet" these are all.
        """
        return self[self._tracklets[0]] if self.has_tracklets else self

    @cached_property
    def _tracklets(self) -> tuple[np.ndarray, np.ndarray]:
        """The first row of each tracklet (t,), and the tracklet of each row (n,)."""
        number = self.columns.get(TRACKLET, np.arange(len(self)))
        _, first, owner = np.unique(number, return_index=True, return_inverse=True)
        return first, owner

    def without(self, *columns: str) -> "PersonImages":
        """The same images without these columns."""
        kept = {name: values for name, values in self.columns.items() if name not in columns}
        return replace(self, columns=kept)

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """`names[index[i]] == identity[i]`: sorted labels (c,) and int32 indices (n,)."""
        names, index = np.unique(self.identity, return_inverse=True)
        return names, index.astype(np.int32)


@dataclass(frozen=True, eq=False)
class ReidDataset:
    """A data set by name, with the parts that it has: None stands for a part that is not there."""

    name: str
    train: PersonImages | None
    query: PersonImages | None
    gallery: PersonImages | None

    def parts(self) -> dict[str, PersonImages]:
        """The parts that are there, in the order train, query, gallery."""
        parts = ("train", "query", "gallery")
        return {name: part for name in parts if (part := getattr(self, name)) is not None}

    def map(self, change: Callable[[PersonImages], PersonImages]) -> "ReidDataset":
        """The data set of the changed parts."""
        parts = (self.train, self.query, self.gallery)
        return ReidDataset(self.name, *(None if p is None else change(p) for p in parts))

    def hold_out(self, fraction: float, seed: int = 0) -> "ReidDataset":
        """Query and gallery images of a fraction of the training identities, who are kept aside.

        Of each of them every camera gives one query, drawn, as long as the gallery holds an image
        of another camera for each query; without cameras one image is a query. Who has no such pair
        stays in training.

        Args:
            fraction: of the identities that have one, in (0, 1).
            seed: of what is drawn.

        Raises:
            InputError: a data set with query and gallery images, or one without training images;
                fewer than two identities to keep aside or to train on.
        """
        checks.within("(0, 1)", "0.2 is usual", fraction=fraction)
        images = self.train
        if self.query is not None or self.gallery is not None or images is None:
            raise InputError(
                f"identities are held out of a data set that has training images alone: "
                f"{self.name} has {', '.join(self.parts())}; leave holdout out",
                "holdout",
            )
        rng = np.random.default_rng(seed)
        names, identity = images.classes()
        queries = [_queries(images, rows, rng) for rows in _rows_of(identity)]
        fit = rng.permutation([i for i, rows in enumerate(queries) if rows])
        held = fit[: round(fraction * len(fit))]
        if len(held) < 2 or len(names) - len(held) < 2:
            raise InputError(
                f"at least two identities are held out and two are trained on: received "
                f"{len(names)}, of whom {len(fit)} have images to find each other, and "
                f"{fraction:g}; give more images or another fraction",
                "holdout",
            )
        aside = np.isin(identity, held)
        asked = np.zeros(len(images), bool)
        asked[[row for i in held for row in queries[i]]] = True
        return ReidDataset(self.name, images[~aside], images[aside & asked], images[aside & ~asked])

    def all_to_train(self) -> "ReidDataset":
        """The images of all parts, but distractors, to train on; nothing is left to score."""
        images = joined(*self.parts().values())
        return ReidDataset(self.name, images[~images.distractor], None, None)


def _rows_of(owner: np.ndarray) -> list[np.ndarray]:
    """The rows of each of 0 … t − 1, all of whom own some, in their order."""
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner))[:-1])


def _queries(images: PersonImages, rows: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Those of an identity's rows that are queries, so that the others hold a match for each."""
    rows = rng.permutation(rows)
    if images.camera is None:
        return rows[:1].tolist() if len(rows) > 1 else []
    cameras = images.camera[rows]
    asked: list[int] = []
    for camera in dict.fromkeys(cameras.tolist()):
        tried = [*asked, int(rows[cameras == camera][0])]
        left = cameras[~np.isin(rows, tried)]
        if all((left != images.camera[row]).any() for row in tried):
            asked = tried
    return asked


def joined(*parts: PersonImages) -> PersonImages:
    """The images of all parts; identities or cameras that are text in one are text in all.

    Cameras and columns that not all of them have are left out, and tracklets, for each part has
    numbers of its own.
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
        raise InputError(
            f"file names are text in UTF-8, which TensorFlow opens: received {wrong!r}; rename it"
        ) from None


def _labels(values: Any, column: str) -> np.ndarray:
    labels = np.asarray(values)
    if labels.dtype.kind == "U":
        return normalized_labels(labels)
    if labels.dtype.kind not in "iu" and labels.size:
        raise InputError(
            f"{column} must hold integers or text, got values such as {labels.flat[0]!r}: "
            "convert the column before building PersonImages"
        )
    return checks.int64(labels, column)


def _joined_labels(labels: Sequence[np.ndarray]) -> np.ndarray:
    """One column, of text if one of them is."""
    text = any(part.dtype.kind == "U" for part in labels)
    return np.concatenate([part.astype(str) if text else part for part in labels])


def name_some(names: Sequence[object], most: int = 5) -> str:
    """`a, b, c and 7 more`."""
    rest = len(names) - most
    listed = ", ".join(str(name) for name in names[:most])
    return f"{listed} and {rest} more" if rest > 0 else listed
