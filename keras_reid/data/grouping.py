"""Tracklets: images of one person in one camera, one after the other."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.data.checking import DISTRACTOR
from keras_reid.data.decode import readable
from keras_reid.data.images import PersonImages, ReidDataset, class_indices
from keras_reid.errors import InputError

# Sequence (or track) and frame in the names of Market-1501, MARS and DukeMTMC.
NAMES = (
    re.compile(r"-?\d+_c\d+s(?P<sequence>\d+)_(?P<frame>\d+_\d+)"),
    re.compile(r"\S+C\d+T(?P<sequence>\d+)F(?P<frame>\d+)"),
    re.compile(r"\S+C\d+(?P<sequence>)_?F(?P<frame>\d+)", re.IGNORECASE),
)


@dataclass(frozen=True, eq=False, repr=False)
class Tracklets:
    """Tracklet i is the files `frames[i]` in order, shows `identity[i]` before `camera[i]`.

    Raises:
        InputError: columns that differ in length, or a tracklet without frames.
    """

    frames: Sequence[np.ndarray]
    identity: np.ndarray
    camera: np.ndarray

    def __post_init__(self) -> None:
        frames = tuple(np.array(part, dtype=str) for part in self.frames)
        object.__setattr__(self, "frames", frames)
        flat = PersonImages(np.array([""] * len(self.identity)), self.identity, self.camera)
        object.__setattr__(self, "identity", flat.identity)
        object.__setattr__(self, "camera", flat.camera)
        if len(frames) != len(flat) or flat.camera is None or not all(map(len, frames)):
            raise InputError(
                "a tracklet has frames, an identity and a camera: received "
                f"{len(frames)} lists of frames, {sum(not len(f) for f in frames)} of them empty, "
                f"and {len(flat)} identities"
            )

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, rows: Any) -> "Tracklets":
        """The tracklets at an index, a slice, an array of indices or a boolean mask."""
        rows = np.atleast_1d(np.arange(len(self))[rows])
        return Tracklets([self.frames[i] for i in rows], self.identity[rows], self.camera[rows])

    def __repr__(self) -> str:
        return (
            f"Tracklets({len(self)} tracklets, {len(self.owner)} frames, "
            f"{len(np.unique(self.identity))} identities, {len(np.unique(self.camera))} cameras)"
        )

    @property
    def owner(self) -> np.ndarray:
        """The tracklet of each frame, (f,)."""
        return np.repeat(np.arange(len(self)), [len(part) for part in self.frames])

    @property
    def images(self) -> PersonImages:
        """All frames as images, tracklet after tracklet."""
        path = np.concatenate(self.frames) if len(self) else np.array([], str)
        return PersonImages(path, self.identity[self.owner], self.camera[self.owner])

    def classes(self) -> tuple[np.ndarray, np.ndarray]:
        """`names[index[i]] == identity[i]`: sorted labels (c,) and int32 indices (n,)."""
        return class_indices(self.identity)


@dataclass(frozen=True, eq=False)
class TrackletDataset:
    """A data set of tracklets; the queries are among the gallery, as in MARS, or not."""

    name: str
    train: Tracklets | None
    query: Tracklets | None
    gallery: Tracklets | None


def tracklets(images: PersonImages, gap: int | None = None) -> Tracklets:
    """Groups images by identity, camera and sequence, in the order of their frames.

    Sequence and frame are read from file names as in Market-1501 (0002_c1s1_000451_03.jpg), MARS
    (0001C1T0002F003.jpg) and DukeMTMC (0001_c2_f0046182.jpg); of others all images of an identity
    and camera are one tracklet, in the order of their names.

    Args:
        images: n images with cameras.
        gap: a tracklet ends where so many frames lie before its next image; None: nowhere.

    Raises:
        InputError: images without cameras, or a gap below 1.
    """
    if images.camera is None:
        raise InputError("a tracklet is of one camera: these images have none; give them cameras")
    if gap is not None:
        checks.at_least(1, "a number of frames, or None", gap=gap)
    groups: dict[tuple[Any, ...], list[tuple[list[int], str]]] = {}
    columns = (images.path.tolist(), images.identity.tolist(), images.camera.tolist())
    for path, identity, camera in zip(*columns, strict=True):
        sequence, frame = _named(path)
        groups.setdefault((identity, camera, sequence), []).append((frame, path))
    found = []
    for (identity, camera, _), frames in sorted(groups.items()):
        part: list[str] = []
        last: list[int] = []
        for frame, path in sorted(frames):
            if gap is not None and frame and last and frame[0] - last[0] > gap:
                found.append((part, identity, camera))
                part = []
            part.append(path)
            last = frame
        found.append((part, identity, camera))
    if not found:
        raise InputError("tracklets are made of images: received none")
    frames_of, identities, cameras = zip(*found, strict=True)
    return Tracklets([np.array(f) for f in frames_of], np.array(identities), np.array(cameras))


def _named(path: str) -> tuple[str, list[int]]:
    """The sequence and the numbers of the frame in a file's name, as far as it has them."""
    name = re.split(r"[\\/]", path)[-1]
    for pattern in NAMES:
        if match := pattern.match(name):
            return match["sequence"], [int(number) for number in match["frame"].split("_")]
    return "", []


def tracklet_dataset(dataset: ReidDataset, gap: int | None = None) -> TrackletDataset:
    """The images of a data set as tracklets, tested as MARS is.

    Query and gallery images together are the test tracklets. All of them are the gallery, and of
    each identity and camera the first is a query; distractors (0) are none. The protocol "mars"
    leaves out what is of the query's camera and identity, and so the query itself (Zheng et al.,
    ECCV 2016).

    Raises:
        InputError: as `tracklets`.
    """
    train = None if dataset.train is None else tracklets(dataset.train, gap)
    if dataset.query is None or dataset.gallery is None:
        return TrackletDataset(dataset.name, train, None, None)
    both = (dataset.query, dataset.gallery)
    if any(part.camera is None for part in both):
        raise InputError("a tracklet is of one camera: these images have none; give them cameras")
    path, identity, camera = (np.concatenate([getattr(p, c) for p in both]) for c in COLUMNS)
    whole = tracklets(PersonImages(path, identity, camera), gap)
    pairs = list(zip(whole.identity.tolist(), whole.camera.tolist(), strict=True))
    first = {pair: i for i, pair in reversed(list(enumerate(pairs)))}
    rows = sorted(i for (identity, _), i in first.items() if identity != DISTRACTOR)
    return TrackletDataset(dataset.name, train, whole[rows], whole)


COLUMNS = ("path", "identity", "camera")


def readable_tracklets(given: Tracklets) -> Tracklets:
    """The tracklets without the frames that do not decode; see `keras_reid.data.readable`."""
    kept = set(readable(given.images).path.tolist())
    frames = [part[np.isin(part, list(kept))] for part in given.frames]
    rows = np.array([len(part) > 0 for part in frames])
    return Tracklets([f for f in frames if len(f)], given.identity[rows], given.camera[rows])
