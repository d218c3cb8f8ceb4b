"""Validation of image files and data sets."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from keras_reid import checks
from keras_reid.data.datasets import ReidDataset
from keras_reid.data.files import too_large
from keras_reid.data.images import ORIENTATION, PersonImages
from keras_reid.errors import InputError, Shown, counted, invalid, name_some
from keras_reid.io import content_digest
from keras_reid.pixels import (
    BY_PILLOW,
    decode,
    graph_decode,
    graph_decode_upright,
    graph_orientation,
)

FEW = 16  # files that are decoded without a graph
UNREADABLE = -1  # stored instead of an orientation


@dataclass(frozen=True)
class CheckReport:
    """Result of `check`, which prints as a table.

    Attributes:
        sizes: numbers of images, identities and cameras of each part; None if it has no cameras.
        unreadable: files that do not decode.
        shared: identities, except distractors, both in train and in query or gallery.
        unmatched: query files with an identity that is not in another camera of the gallery, or, if
            there are no cameras, not in the gallery.
        few: training identities with fewer than `num_instances` images. PK sampling repeats these
            images, so `ok` ignores them.
        duplicates: groups of listed images with the same content.
        alone: the training identity, if there is only one; training requires two.
    """

    name: str
    num_instances: int
    sizes: dict[str, tuple[int, int, int | None]]
    unreadable: list[str] = field(default_factory=list)
    shared: list[int | str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    few: list[int | str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    alone: list[int | str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if no finding affects training or scores."""
        faults = (self.unreadable, self.shared, self.unmatched, self.duplicates, self.alone)
        return not any(faults)

    def __str__(self) -> str:
        lines = [f"{self.name}: {'ok' if self.ok else 'has faults'}", ""]
        lines.append(f"{'part':<9}{'images':>9}{'identities':>12}{'cameras':>9}")
        for part, (images, identities, cameras) in self.sizes.items():
            lines.append(f"{part:<9}{images:>9}{identities:>12}{cameras or 'none':>9}")
        lines.append("")
        findings: dict[str, Sequence[object]] = {
            "unreadable files": self.unreadable,
            "identities in both train and test": self.shared,
            "queries with no match in another camera": self.unmatched,
            "groups of files with the same content": [" = ".join(g) for g in self.duplicates],
            f"train identities with fewer than {self.num_instances} images": self.few,
        }
        if self.alone:
            findings["person to train on, but at least 2 are required"] = self.alone
        for title, names in findings.items():
            shown = f"  ({name_some(names, most=3)})" if names else ""
            lines.append(f"{len(names):>6}  {title}{shown}")
        return "\n".join(lines)


def check(dataset: ReidDataset, num_instances: int = 4) -> CheckReport:
    """Decode every file, compare all labels, and return a report; `report.ok` summarizes it.

    Args:
        dataset: any data set.
        num_instances: K, the images per identity in a PK batch.

    Example:
        >>> from keras_reid.data import PersonImages, ReidDataset
        >>> train = PersonImages(["missing.jpg", "gone.jpg"], [1, 2], None)
        >>> report = check(ReidDataset("mine", train, None, None))
        >>> report.ok, report.unreadable
        (False, ['gone.jpg', 'missing.jpg'])
    """
    parts = dataset.parts()
    paths = np.concatenate([images.path for images in parts.values()])
    files, place = np.unique(paths, return_inverse=True)
    decodes = decodable(files)
    images = dataset.train
    trained = np.array([]) if images is None else images.identity[~images.unlabeled]
    persons, counts = np.unique(trained, return_counts=True)
    return CheckReport(
        name=dataset.name,
        num_instances=num_instances,
        sizes={part: _sizes(images) for part, images in parts.items()},
        unreadable=files[~decodes].tolist(),
        shared=_shared(dataset),
        unmatched=_unmatched(dataset.query, dataset.gallery),
        few=persons[counts < num_instances].tolist(),
        duplicates=_duplicates(paths[decodes[place]].tolist()),
        alone=persons.tolist() if len(persons) == 1 else [],
    )


def _sizes(images: PersonImages) -> tuple[int, int, int | None]:
    cameras = None if images.camera is None else len(np.unique(images.camera))
    return len(images), len(images.classes()[0]), cameras


def _identities(images: PersonImages | None) -> set[Any]:
    if images is None:
        return set()
    return set(images.identity[~(images.distractor | images.unlabeled)].tolist())


def _shared(dataset: ReidDataset) -> list[int | str]:
    test = _identities(dataset.query) | _identities(dataset.gallery)
    return sorted(_identities(dataset.train) & test, key=str)


def _unmatched(query: PersonImages | None, gallery: PersonImages | None) -> list[str]:
    if query is None or gallery is None:
        return []
    cameras: dict[object, set[Any]] = defaultdict(set)
    for identity, camera in _sightings(gallery):
        cameras[identity].add(camera)
    return [
        path
        for path, (identity, camera) in zip(query.path.tolist(), _sightings(query), strict=True)
        if not cameras[identity] - ({camera} if query.camera is not None else set())
    ]


def _sightings(images: PersonImages) -> list[tuple[Any, ...]]:
    cameras = [None] * len(images) if images.camera is None else images.camera.tolist()
    return list(zip(images.identity.tolist(), cameras, strict=True))


def _duplicates(paths: list[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[content_digest(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def orientations(
    path: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Return the Exif orientation (n,) of each file, 1 to 8, for the column "exif_orientation".

    `BY_PILLOW` marks files that only Pillow decodes. `UNREADABLE` marks files that are missing,
    damaged or `too_large`. Files are decoded in parallel. `progress` is called with the numbers of
    processed and of all files.
    """
    # Headers are read in one thread: several threads share the lock of Python and take longer.
    turns = np.array([_turn(file) for file in path.tolist()], np.int32)
    places = np.flatnonzero(turns != UNREADABLE)
    read = np.full(len(path), UNREADABLE, np.int32)
    for indices in _decoded(path[places], turns[places]):
        rows = places[indices]
        read[rows] = turns[rows]
        if progress and len(places) > FEW:
            progress(int(rows[-1]) + 1, len(path))
    if progress and len(places) > FEW:
        progress(len(path), len(path))
    return read


def _turn(path: str) -> int:
    if too_large(path):
        return UNREADABLE
    try:
        return graph_orientation(path)
    except InputError:
        return UNREADABLE


def _decoded(path: np.ndarray, turns: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the indices of the files that decode, in chunks."""
    index = np.arange(len(path))
    if len(path) <= FEW:
        for row, (file, turn) in enumerate(zip(path.tolist(), turns.tolist(), strict=True)):
            with contextlib.suppress(tf.errors.OpError, InputError):
                if turn == BY_PILLOW:
                    decode(file)
                else:
                    graph_decode_upright(tf.io.read_file(file), turn)
                yield index[row : row + 1]
        return

    @tf.autograph.experimental.do_not_convert
    def shape_of(index: tf.Tensor, path: tf.Tensor, turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Without the shape, tf.data prunes the decoding even with a control dependency.
        return index, tf.shape(graph_decode(tf.io.read_file(path), turn))

    files = tf.data.Dataset.from_tensor_slices((index, path, turns))
    shapes = files.map(shape_of, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    for indices, _ in shapes.batch(256).as_numpy_iterator():
        yield indices


def decodable(path: np.ndarray, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """Return a mask (n,) of the files that decode and are not `too_large`.

    Args:
        path: (n,) files.
        progress: called with the numbers of processed and of all files.
    """
    return orientations(path, progress) != UNREADABLE


def readable(
    images: PersonImages,
    max_unreadable: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> PersonImages:
    """Return the images that decode, with a column "exif_orientation"; a warning names the others.

    Args:
        images: n images.
        max_unreadable: maximum fraction of unreadable images, 0 to 1.
        progress: called with the numbers of processed and of all images.

    Raises:
        InputError: more than `max_unreadable` of the images are unreadable, or all of them.
    """
    checks.within("[0, 1]", max_unreadable=max_unreadable)
    if images.checked:
        return images
    turns = orientations(images.path, progress)
    images, mask = images.with_columns(**{ORIENTATION: turns}), turns != UNREADABLE
    if mask.all():
        return images
    broken = images.path[~mask].tolist()
    if len(broken) > max_unreadable * len(images) or not mask.any():
        rule = f"readable except for at most {max_unreadable:.2%}"
        received = Shown(f"{len(broken)} unreadable of {len(images)}")
        fix = f"Restore or remove {name_some(broken)}."
        raise invalid("images", rule, received, fix)
    logging.warning("skipping %s: %s", counted(len(broken), "unreadable image"), ", ".join(broken))
    return images[mask]
