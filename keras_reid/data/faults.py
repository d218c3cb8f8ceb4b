"""What is wrong with a data set, before an hour of training on it tells."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_reid.data.decode import decodable
from keras_reid.data.images import PersonImages, ReidDataset, name_some
from keras_reid.io import content_digest


@dataclass(frozen=True)
class CheckReport:
    """The findings of `check`; printing it prints them.

    Attributes:
        sizes: for each part its numbers of images, identities and cameras (None without cameras).
        unreadable: files that do not decode.
        shared: identities, but distractors, both in train and in query or gallery.
        unmatched: query files whose identity no other camera of the gallery saw, or, without
            cameras, that the gallery lacks.
        few: training identities with fewer than `instances` images. PK sampling repeats images
            of these, so they are no fault: `ok` does not count them.
        duplicates: groups of images with the same content, be it one file listed twice.
        alone: the training identity, if there is only one; training needs at least two.
    """

    name: str
    instances: int
    sizes: dict[str, tuple[int, int, int | None]]
    unreadable: list[str] = field(default_factory=list)
    shared: list[int | str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    few: list[int | str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    alone: list[int | str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that spoils training or the score."""
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
            f"train identities with fewer than {self.instances} images": self.few,
        }
        if self.alone:
            findings["person to train on, but at least 2 are required"] = self.alone
        for title, found in findings.items():
            names = f"  ({name_some(found, most=3)})" if found else ""
            lines.append(f"{len(found):>6}  {title}{names}")
        return "\n".join(lines)


def check(dataset: ReidDataset, instances: int = 4) -> CheckReport:
    """Opens every file and compares every column; the report prints, and `report.ok` sums it up.

    Args:
        instances: K, the images per identity in a PK batch.
    """
    parts = dataset.parts()
    listed = np.concatenate([images.path for images in parts.values()])
    paths, place = np.unique(listed, return_inverse=True)
    alive = decodable(paths)
    return CheckReport(
        name=dataset.name,
        instances=instances,
        sizes={part: _sizes(images) for part, images in parts.items()},
        unreadable=paths[~alive].tolist(),
        shared=_shared(dataset),
        unmatched=_unmatched(dataset.query, dataset.gallery),
        few=_few(dataset.train, instances),
        duplicates=_duplicates(listed[alive[place]].tolist()),
        alone=_alone(dataset.train),
    )


def _sizes(images: PersonImages) -> tuple[int, int, int | None]:
    cameras = None if images.camera is None else len(np.unique(images.camera))
    return len(images), len(np.unique(images.identity)), cameras


def _identities(images: PersonImages | None) -> set[Any]:
    return set() if images is None else set(images.identity[~images.distractor].tolist())


def _shared(dataset: ReidDataset) -> list[int | str]:
    test = _identities(dataset.query) | _identities(dataset.gallery)
    return sorted(_identities(dataset.train) & test, key=str)


def _unmatched(query: PersonImages | None, gallery: PersonImages | None) -> list[str]:
    if query is None or gallery is None:
        return []
    seen_by: dict[object, set[Any]] = defaultdict(set)
    for identity, camera in _sightings(gallery):
        seen_by[identity].add(camera)
    return [
        path
        for path, (identity, camera) in zip(query.path.tolist(), _sightings(query), strict=True)
        if not seen_by[identity] - ({camera} if query.camera is not None else set())
    ]


def _sightings(images: PersonImages) -> list[tuple[Any, ...]]:
    cameras = [None] * len(images) if images.camera is None else images.camera.tolist()
    return list(zip(images.identity.tolist(), cameras, strict=True))


def _few(train: PersonImages | None, instances: int) -> list[int | str]:
    if train is None:
        return []
    names, counts = np.unique(train.identity, return_counts=True)
    return names[counts < instances].tolist()


def _alone(train: PersonImages | None) -> list[int | str]:
    names = [] if train is None else train.classes()[0].tolist()
    return names if len(names) == 1 else []


def _duplicates(paths: list[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[content_digest(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]
