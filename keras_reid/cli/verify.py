"""`python search.py verify A B`: are two images of one person?"""

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, gallery
from keras_reid.cli.common import GalleryOptions
from keras_reid.cli.terminal import progress
from keras_reid.errors import InputError
from keras_reid.io import read_table, table_path


class Pair(NamedTuple):
    """Result of a 1:1 comparison.

    Attributes:
        first, second: paths of the images.
        distance: between their embeddings.
        decision: match, possible match or no match; None without a calibration.
    """

    first: str
    second: str
    distance: float
    decision: gallery.Decision | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        verdict, probability = self.decision or (None, None)
        return {
            "first": self.first,
            "second": self.second,
            "distance": self.distance,
            "verdict": verdict,
            "probability": probability,
        }


def compared(options: GalleryOptions, arguments: list[str]) -> list[Pair]:
    """Compare two images, all images of two folders, or the pairs of a table."""
    if options.gallery is not None:
        gallery.check_exists(options.uri)  # before the images are embedded
    pairs = _table(Path(arguments[0])) if len(arguments) == 1 else _product(*arguments)
    paths = list(dict.fromkeys(path for pair in pairs for path in pair))
    images = data.query_images(paths, progress=progress("reading images"))
    x = np.asarray(options.embedder()(images))
    row = {path: i for i, path in enumerate(paths)}
    first, second = (x[[row[pair[side]] for pair in pairs]] for side in (0, 1))
    calibration = options.loaded.calibration
    if options.gallery is not None:
        with gallery.open(options.uri) as people:
            calibration = options.calibrated(people)
    if calibration is None:
        distances = np.linalg.norm(first.astype(np.float64) - second, axis=1).tolist()
        return [Pair(*pair, d, None) for pair, d in zip(pairs, distances, strict=True)]
    decided = gallery.verify(first, second, calibration, options.limits)
    return [Pair(*pair, *one) for pair, one in zip(pairs, decided, strict=True)]


def _product(first: str, second: str) -> list[tuple[str, str]]:
    """All pairs of an image of one side and an image of the other, a folder or a file."""
    sides = []
    for path in (first, second):
        found = [path] if not Path(path).is_dir() else data.unlabeled(path).path.tolist()
        sides.append(found)
    return list(product(*sides))


def _table(path: Path) -> list[tuple[str, str]]:
    """The pairs of a table; paths are relative to it."""
    if not path.is_file():
        raise InputError(
            f"verify takes two images, two folders, or a CSV file with columns first,second: "
            f"{path} is not a file"
        )
    lines = read_table(path, ("first", "second"))[1]
    names = ("first", "second")
    pairs = [tuple(str(table_path(path, line.values[name])) for name in names) for line in lines]
    if not pairs:
        raise InputError(f"{path} must have at least one pair, got none. Add lines.")
    return [(first, second) for first, second in pairs]
