"""`python cluster.py --images=DIR --out=DIR`: groups images by the person they show.

The embedder is --model, by default the pretrained model.
"""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging

from keras_reid import data, evaluation, visualize
from keras_reid.cli.common import (
    ModelOptions,
    check_outputs,
    check_picture,
    progress,
    say,
    stored_features,
)
from keras_reid.cli.options import Command, option
from keras_reid.errors import InputError, counted
from keras_reid.evaluation.clusters import METHODS
from keras_reid.evaluation.labels import unlabeled
from keras_reid.io import new_file, new_folder

PAIRS = "1:1 at FAR 0.0001", "1:1 at FAR 0.01"  # sure and possible ones
MANY = 4  # times the images of a usual group, from which neighbors are mostly others
Known = tuple[np.ndarray, np.ndarray]  # identities (m,), and a mask (n,) of their images
LARGEST = 0.2  # fraction of the images, beyond which a group is suspicious


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(ModelOptions):
    """What is grouped, how, and where the groups go."""

    images: str | None = option("Folder of images, with those in its folders, unlabeled.")
    features: str | None = option(
        "Instead of a model and images: an .npz or .mat file, or a folder of .npy files, of "
        "features."
    )
    part: str = option(
        "Of a --dataset, whose labels score it.", "gallery", choices=("train", "query", "gallery")
    )
    out: str | None = option("New folder for copies, one folder for each person.")
    csv: str | None = option("New CSV file with columns path, person.")
    contact_sheet: str | None = option(
        "New picture: a row of images for each of the largest groups."
    )
    method: str = option("How groups are made.", "dbscan", choices=tuple(METHODS))
    eps: float | None = option(
        "Jaccard distance up to which images are together; default: chosen from the images."
    )
    min_samples: int = option("Of dbscan: images that make a group.", 4, least=1)
    k1: int | None = option("Neighbors to each image; default: chosen from the images.", least=1)
    k2: int | None = option(
        "Images whose encodings are averaged; default: 0.3 k1, from 2 to 6.", least=1
    )


@dataclass(frozen=True, eq=False)
class ClusterResult(evaluation.Clustering):
    """The labels (n,) of the images, with the other results that are printed.

    Attributes:
        path: files (n,) of the labels; None for stored features.
        scores: scores by the identities of the data set; None if they are unknown.
    """

    path: np.ndarray | None = None
    scores: evaluation.ClusterScores | None = None


def cluster(options: ClusterOptions) -> ClusterResult:
    """Embed and group images, write the groups to the requested outputs and return them.

    Raises:
        InputError: options that do not go together, outputs that exist, or no images.
    """
    outputs = {"out": options.out, "csv": options.csv, "contact_sheet": options.contact_sheet}
    check_outputs(**outputs)
    check_picture(contact_sheet=options.contact_sheet)
    if options.features and (options.out or options.contact_sheet):
        raise InputError(
            "--out and --contact_sheet need images: features alone are grouped to --csv"
        )
    path, features, known = _stored(options) if options.features else _embedded(options)
    found = evaluation.clustering(
        features,
        options.method,
        options.eps,
        options.min_samples,
        options.k1,
        options.k2,
        progress("neighbors"),
        _pairs(options),
    )
    person = found.labels
    groups, left = person.max() + 1, int((person == -1).sum())
    say(
        f"by --eps={found.eps:g} --k1={found.k1} --k2={found.k2} "
        f"(silhouette {found.silhouette:.3f}):"
    )
    say(
        f"{counted(len(person), 'image')}: {counted(groups, 'person')}, "
        f"{counted(left, 'image')} in no group"
    )
    if found.largest > LARGEST:
        logging.warning(
            "one group holds %.0f %% of the images and may be several persons: look at "
            "--contact_sheet; a "
            "smaller --eps or --k1 takes it apart",
            100 * found.largest,
        )
    usual = np.median(np.bincount(person[person >= 0])) if groups else np.inf
    if found.k1 > MANY * usual:
        logging.warning(
            "%d neighbors are asked for each image, and half of the groups have %d images or "
            "fewer, so most neighbors are other persons: try --k1=%d",
            found.k1,
            usual,
            max(2, usual),
        )
    scores = None
    if known is not None and len(known[0]):
        scores = evaluation.cluster_scores(known[0], person[known[1]])
        say(str(scores))
    if options.out and path is not None:
        _write_folders(path, person, Path(options.out))
    if options.csv:
        _write_csv(path, person, Path(options.csv))
    if options.contact_sheet:
        sheet = visualize.draw_groups(path, person, features)
        with new_file(options.contact_sheet) as file:
            sheet.save(file)
    for output in filter(None, outputs.values()):
        say(f"written to {output}")
    return ClusterResult(**vars(found), path=path, scores=scores)


def _pairs(options: ClusterOptions) -> tuple[float, float] | None:
    """Distances of sure and of possible pairs of one person; None: not known of the model."""
    card = None if options.features else options.source.pretrained
    if card is None:
        return None
    sure, possible = (card.thresholds[name]["value"] for name in PAIRS)
    return sure, possible


def _embedded(options: ClusterOptions) -> tuple[np.ndarray, np.ndarray, Known | None]:
    """Paths and features of images, and their identities if they are known."""
    if (options.images is None) == (options.dataset is None):
        raise InputError("name what to group: give either --images or --dataset with --data_dir")
    if options.images:
        images = data.unlabeled(options.images)
    else:
        dataset = options.dataset_of(options.dataset, options.data_dir, "images are read of a set")
        parts = dataset.parts()
        if options.part not in parts:
            raise InputError(f"--part is one of {', '.join(parts)} here: received {options.part!r}")
        images = parts[options.part]
    images = data.readable(images, progress=progress("reading images"))
    each = images.per_tracklet()
    rows = ~each.distractor
    known = None if options.images else (each.identity[rows], rows)
    return each.path, options.embedder()(images), known


def _stored(options: ClusterOptions) -> tuple[None, np.ndarray, Known | None]:
    if options.model_name or options.images or options.dataset:
        raise InputError("--features stands instead of a model and images: name one of the two")
    assert options.features is not None
    stored = stored_features(options.features)
    if "embedding" not in stored.features:
        raise InputError(f"images are grouped by embeddings: {options.features} has stripes alone")
    known = None
    if stored.identity is not None:
        rows = ~unlabeled(stored, stored.identity)
        known = stored.identity[rows], rows
    return None, stored.features["embedding"], known


def _name(person: int) -> str:
    return "unassigned" if person < 0 else f"person_{person + 1:04d}"


def _write_folders(path: np.ndarray, person: np.ndarray, root: Path) -> None:
    """Copies `ROW_NAME`, for files of one name may come from several folders."""
    with new_folder(root) as staged:
        for row, (file, number) in enumerate(zip(path.tolist(), person.tolist(), strict=True)):
            folder = staged / _name(number)
            folder.mkdir(exist_ok=True)
            shutil.copyfile(file, folder / f"{row:06d}_{Path(file).name}")


def _write_csv(path: np.ndarray | None, person: np.ndarray, file: Path) -> None:
    rows = range(len(person)) if path is None else path.tolist()
    with new_file(file) as partial, partial.open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(("row" if path is None else "path", "person"))
        table.writerows(zip(rows, map(_name, person.tolist()), strict=True))


SHOWN = "model images features dataset data_dir out csv contact_sheet method"
run = Command(cluster, ClusterOptions, SHOWN)
