"""Unions of data sets, the sources, for training on several of them at once."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_reid import checks
from keras_reid.data.datasets import ReidDataset, joined
from keras_reid.data.images import SOURCE, TRACKLET, PersonImages
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.names import StrPath

NAME = re.compile(r"[\w.-]+")  # also valid in metrics of experiment trackers


def union(datasets: Sequence[ReidDataset], names: Sequence[str]) -> ReidDataset:
    """Return one data set of all images; different data sets share no identity and no camera.

    Person 7 of the data set "market" becomes "market/7", and its camera 1 becomes "market/1". Each
    part has a column "source" with the name of the data set. Unlabeled images stay unlabeled.

    If some data sets have no cameras, each of their parts counts as one camera, such as
    "photos/query". Then a query is compared with all gallery images of its person. If there are
    tracklets, the images of data sets without tracklets are tracklets of one image.

    Args:
        datasets: one or more.
        names: a different name for each, of letters, digits, "_", "-" and ".".

    Raises:
        InputError: another number of names, an invalid name, or two equal names.

    Example:
        >>> first, second = (
        ...     ReidDataset("mine", PersonImages(["a.jpg", "b.jpg"], [7, 8], [1, 2]), None, None)
        ...     for _ in range(2)
        ... )
        >>> train = union([first, second], ["north", "south"]).train
        >>> train.identity.tolist()
        ['north/7', 'north/8', 'south/7', 'south/8']
        >>> train.columns["source"].tolist()
        ['north', 'north', 'south', 'south']
    """
    checks.at_least(1, datasets=len(datasets))
    if len(names) != len(datasets):
        received = Shown(f"{len(names)} for {len(datasets)}")
        raise invalid("names", "one for each data set", received)
    check_names(names)
    parts = [dataset.parts() for dataset in datasets]
    cameras = any(images.camera is not None for part in parts for images in part.values())
    whole: dict[str, PersonImages | None] = {}
    for kind in ("train", "query", "gallery"):
        named = [
            _named(part[kind], name, kind, cameras)
            for part, name in zip(parts, names, strict=True)
            if kind in part
        ]
        whole[kind] = _joined(named) if named else None
    return ReidDataset("+".join(names), **whole)


def divided(dataset: ReidDataset, folder: StrPath) -> tuple[ReidDataset, ReidDataset]:
    """Return the images outside of a folder, and those in it; query and gallery only in pairs.

    Args:
        dataset: data set.
        folder: folder with images, also in subfolders.
    """
    root = Path(os.path.abspath(folder))

    def inside(images: PersonImages) -> np.ndarray:
        paths = map(os.path.abspath, images.path.tolist())
        return np.array([Path(path).is_relative_to(root) for path in paths], bool)

    masks = {kind: inside(images) for kind, images in dataset.parts().items()}

    def part(within: bool) -> ReidDataset:
        images = {k: v[masks[k] == within] for k, v in dataset.parts().items()}
        kept = {kind: one for kind, one in images.items() if len(one)}
        if not {"query", "gallery"} <= {*kept}:
            kept = {kind: one for kind, one in kept.items() if kind == "train"}
        return ReidDataset(dataset.name, *map(kept.get, ("train", "query", "gallery")))

    return part(False), part(True)


def check_names(names: Sequence[str], argument: str = "names") -> None:
    """Raise for a name of a source that is invalid or occurs twice.

    Args:
        names: names.
        argument: name in the message.
    """
    for name, count in Counter(names).items():
        if not NAME.fullmatch(name):
            rule = 'names of letters, digits, "_", "-" and "."'
            raise invalid(argument, rule, name, "Use NAME=PATH.")
        if count > 1:
            raise InputError(
                f"`{argument}` must be different names, got {name!r} {count} times. Use NAME=PATH.",
                argument,
            )


def _named(images: PersonImages, name: str, part: str, cameras: bool) -> PersonImages:
    """Return images with labels that begin with the name, and the column "source"."""
    camera = None
    if cameras:
        own = images.camera
        camera = _prefixed(name, np.full(len(images), part) if own is None else own)
    identity = np.where(images.unlabeled, "", _prefixed(name, images.identity))
    columns = {**images.columns, SOURCE: np.full(len(images), name)}
    return PersonImages(images.path, identity, camera, columns, images.distractor)


def _prefixed(name: str, labels: np.ndarray) -> np.ndarray:
    return np.char.add(f"{name}/", labels.astype(str))


def _joined(parts: Sequence[PersonImages]) -> PersonImages:
    """Join images; number the tracklets consecutively if there are any."""
    images = joined(*parts)
    if not any(part.has_tracklets for part in parts):
        return images
    counts = [len(part.tracklet_rows) for part in parts]
    starts = np.cumsum(counts) - counts
    numbers = [part.owner + start for part, start in zip(parts, starts, strict=True)]
    return images.with_columns(**{TRACKLET: np.concatenate(numbers)})
