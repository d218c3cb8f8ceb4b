"""Data sets of train, query and gallery images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.data.images import TRACKLET, PersonImages, rows_of
from keras_reid.errors import InputError, Shown, invalid


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
        """Return the data set with each part replaced by `change(part)`."""
        parts: dict[str, Any] = {name: change(part) for name, part in self.parts().items()}
        return replace(self, **parts)

    def hold_out(self, fraction: float, seed: int = 0) -> "ReidDataset":
        """Move a fraction of the training identities to a hold-out set, as query and gallery.

        Every camera gives one random query of each of these identities if the gallery keeps an
        image of another camera for each query. If there are no cameras, one image is a query.
        Identities that allow no such query stay in training.

        Args:
            fraction: share of the identities that allow a query, in (0, 1).
            seed: seed of the random choice.

        Raises:
            InputError: the data set has query or gallery images, or no training images; or fewer
                than two identities to hold out or to train on.

        Example:
            >>> paths = [f"{i}.jpg" for i in range(12)]
            >>> train = PersonImages(paths, np.arange(12) // 2, np.arange(12) % 2)
            >>> part = ReidDataset("mine", train, None, None).hold_out(0.4)
            >>> [len(images) for images in (part.train, part.query, part.gallery)]
            [8, 2, 2]
        """
        checks.within("(0, 1)", "0.2 is usual.", fraction=fraction)
        images = self.train
        if self.query is not None or self.gallery is not None or images is None:
            parts = ", ".join(self.parts())
            raise InputError(
                f"`holdout` needs a data set with only training images, but {self.name} has "
                f"{parts}. Omit `holdout`.",
                "holdout",
            )
        rng = np.random.default_rng(seed)
        names, identity = images.classes()
        labeled = np.flatnonzero(identity >= 0)
        groups = rows_of(identity[labeled])
        queries = [_queries(images, labeled[rows], rng) for rows in groups]
        candidates = rng.permutation([i for i, rows in enumerate(queries) if rows])
        held = candidates[: round(fraction * len(candidates))]
        if len(held) < 2 or len(names) - len(held) < 2:
            allowed = f"{len(candidates)} identities that can have a query"
            received = f"{fraction:g} of the {allowed}, of {len(names)} in total"
            rule = "a fraction that holds out at least two identities and leaves at least two"
            fix = "Change the fraction, or add images of more persons and cameras."
            raise invalid("holdout", rule, Shown(received), fix)
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

    Cameras and columns that a part lacks are left out. Tracklets are left out, too, because each
    part numbers its own from 0.

    Args:
        parts: one or more.
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


def _joined_labels(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate labels as text if one of them is text."""
    text = any(part.dtype.kind == "U" for part in labels)
    return np.concatenate([part.astype(str) if text else part for part in labels])
