"""`keras-reid search verify A B`: compare two images of persons."""

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_reid import data, evaluation, gallery, inference
from keras_reid.cli.photos import GalleryPhotoOptions
from keras_reid.cli.terminal import progress
from keras_reid.errors import InputError
from keras_reid.io import read_table, table_path


class Pair(NamedTuple):
    """Result of a 1:1 comparison.

    Attributes:
        first, second: paths of the images.
        distance: distance of their embeddings, or of the pair verifier.
        decision: match, possible match or no match; None if there is no calibration.
    """

    first: str
    second: str
    distance: float
    decision: gallery.Decision | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        verdict, probability = self.decision or (None, None)
        values = {"first": self.first, "second": self.second, "distance": self.distance}
        return {**values, "verdict": verdict, "probability": probability}


def compare_pairs(options: GalleryPhotoOptions, arguments: list[str]) -> list[Pair]:
    """Compare two images, all images of two folders, or the pairs of a table."""
    if options.gallery is not None:
        gallery.check_exists(options.uri)  # before the images are embedded
        inference.as_embedder(options.comparer)
    options.comparer  # noqa: B018  raises for an invalid model before the images are read
    pairs = _table(Path(arguments[0])) if len(arguments) == 1 else _product(*arguments)
    paths = list(dict.fromkeys(path for pair in pairs for path in pair))
    options.check_images(paths)
    persons = options.finder.require(paths, one=True)
    files = {paths[row]: file for row, file in zip(persons.rows, persons.files, strict=True)}
    pairs = [pair for pair in pairs if {*pair} <= {*files}]
    if not pairs:
        options.finder.skipped.finish()
        raise InputError(
            "Both images of a pair must show exactly one person. Pass other images, or set --box."
        )
    distances = _distances(options, [(files[first], files[second]) for first, second in pairs])
    calibration = _calibration(options)
    decisions: list[gallery.Decision | None] = [None] * len(pairs)
    if calibration is not None:
        probabilities = calibration.pair_probability(distances).tolist()
        decisions = [options.limits.decide(p) for p in probabilities]
    results = zip(pairs, distances.tolist(), decisions, strict=True)
    return [Pair(*pair, distance, decision) for pair, distance, decision in results]


def missing_calibration(options: GalleryPhotoOptions) -> str:
    """Return the message for results without a decision, because there is no calibration."""
    if isinstance(options.comparer, inference.PairVerifier):
        fix = "Train it with query and gallery images, or with --holdout,"
    else:
        fix = "Run calibrate with --dataset"
    return f"The model has no calibration. {fix} to get probabilities."


def _distances(options: GalleryPhotoOptions, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Return the distances (n,) of pairs of files."""
    paths = list(dict.fromkeys(path for pair in pairs for path in pair))
    if isinstance(options.comparer, inference.PairVerifier):
        left, right = ([pair[side] for pair in pairs] for side in (0, 1))
        report = progress("comparing")
        return options.comparer.distances(left, right, options.embed_batch_size, report)
    images = data.PersonImages(np.array(paths), np.zeros(len(paths), int), None)
    embeddings = np.asarray(options.embedder()(images), np.float64)
    row = {path: i for i, path in enumerate(paths)}
    first, second = (embeddings[[row[pair[side]] for pair in pairs]] for side in (0, 1))
    return np.linalg.norm(first - second, axis=1)


def _calibration(options: GalleryPhotoOptions) -> evaluation.MatchCalibration | None:
    """Return the calibration of the gallery if one is given, else that of the model."""
    if options.gallery is None:
        return options.comparer.calibration
    with gallery.open(options.uri) as people:
        return options.calibrated(people)


def image_paths(path: str) -> list[str]:
    """Return the images of a folder in natural order, or the path of an image itself."""
    return data.unlabeled(path).path.tolist() if Path(path).is_dir() else [path]


def _product(first: str, second: str) -> list[tuple[str, str]]:
    """Return all pairs of an image of the first and one of the second folder or file."""
    return list(product(image_paths(first), image_paths(second)))


def _table(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of a table; paths are relative to it."""
    if not path.is_file():
        raise InputError(
            f"{path} not found. verify takes two images, two folders, or a CSV file with columns "
            "first,second."
        )
    lines = read_table(path, ("first", "second"))[1]
    pairs = [(line.values["first"], line.values["second"]) for line in lines]
    if not pairs:
        raise InputError(f"`{path}` must have at least one pair, got none. Add lines.")
    return [(str(table_path(path, a)), str(table_path(path, b))) for a, b in pairs]
