"""`python cluster.py --images=DIR --out=DIR`: group images by person.

The embedder is --model, by default the pretrained model.
"""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from absl import logging

from keras_reid import checks, data, evaluation, visualize
from keras_reid.cli.common import ModelOptions
from keras_reid.cli.features import stored_embeddings
from keras_reid.cli.options import Command, option, reject
from keras_reid.cli.startup import import_keras
from keras_reid.cli.terminal import check_outputs, check_picture, progress, say
from keras_reid.errors import counted
from keras_reid.evaluation.clusters import METHODS
from keras_reid.evaluation.labels import unlabeled
from keras_reid.io import new_file, new_folder

PAIRS = "1:1 at FAR 0.0001", "1:1 at FAR 0.01"  # thresholds of almost certain and possible pairs
MANY = 4  # times the images of a median group; more neighbors are mostly of other persons
LARGEST = 0.2  # fraction of the images; a larger group is suspicious
Labels = tuple[np.ndarray, np.ndarray]  # identities (m,), and a mask (n,) of their images


@dataclass(frozen=True, kw_only=True)
class ClusterOptions(ModelOptions):
    """Options of `cluster`: the images or features, the parameters, and the files to write."""

    topic: ClassVar[str] = "cluster"

    images: str | None = option("Folder of unlabeled images, with subfolders.", topic="data")
    features: str | None = option(
        "Features instead of a model and images: an .npz or .mat file, or a folder of .npy files.",
        topic="data",
    )
    part: str = option(
        "Part of --dataset; its labels score the groups.",
        "gallery",
        choices=("train", "query", "gallery"),
        topic="data",
    )
    method: str = option("Clustering method.", "dbscan", choices=tuple(METHODS))
    eps: float | None = option(
        "Maximum Jaccard distance within a group, from 0 to 1. Default: chosen from the images."
    )
    min_samples: int = option("Minimum number of images of a dbscan group.", 4, least=1)
    k1: int | None = option(
        "Number of nearest neighbors that the Jaccard distance of two images compares. Default: "
        "chosen from the images.",
        least=1,
    )
    k2: int | None = option(
        "Number of nearest neighbors, with the image itself, that smooth the Jaccard distance. "
        "Default: 0.3 k1, from 2 to 6.",
        least=1,
    )
    out: str | None = option(
        "New folder for copies of the images: a subfolder for each person.", topic="output"
    )
    csv: str | None = option("New CSV file with the columns path and person.", topic="output")
    contact_sheet: str | None = option(
        "New picture with a row of images for each of the largest groups.", topic="output"
    )


@dataclass(frozen=True, eq=False)
class ClusterResult(evaluation.Clustering):
    """Labels (n,) of the images, with the other printed results.

    Attributes:
        path: files (n,) of the labels; None for stored features.
        scores: scores by the identities of the data set; None if they are unknown.
    """

    path: np.ndarray | None = None
    scores: evaluation.ClusterScores | None = None


def cluster(options: ClusterOptions) -> ClusterResult:
    """Embed and group images, write the groups to the requested outputs and return them.

    Raises:
        InputError: incompatible options, outputs that exist, or no images.
    """
    check_outputs(out=options.out, csv=options.csv, contact_sheet=options.contact_sheet)
    check_picture(contact_sheet=options.contact_sheet)
    files, sources = options.features, (options.images, options.dataset, options.features)
    pictures = "--features has no images for --out and --contact_sheet. Write a --csv."
    reject(
        (files and options.model_name, "--features excludes a model."),
        (sum(map(bool, sources)) != 1, "One of --images, --dataset and --features is required."),
        (files and (options.out or options.contact_sheet), pictures),
    )
    path, features, labels = _stored(options) if files else _embedded(options)
    groups = evaluation.clustering(
        features,
        options.method,
        options.eps,
        options.min_samples,
        options.k1,
        options.k2,
        progress("neighbors"),
        _pairs(options),
    )
    _report(groups)
    scores = None
    if labels is not None and len(labels[0]):
        scores = evaluation.cluster_scores(labels[0], groups.labels[labels[1]])
        say(str(scores))
    _write(options, path, groups.labels, features)
    return ClusterResult(**vars(groups), path=path, scores=scores)


def _write(
    options: ClusterOptions, path: np.ndarray | None, person: np.ndarray, features: np.ndarray
) -> None:
    """Write the outputs and print their paths."""
    if options.out and path is not None:
        _write_folders(path, person, Path(options.out))
        say(f"folders: {options.out}")
    if options.csv:
        _write_csv(path, person, Path(options.csv))
        say(f"table: {options.csv}")
    if options.contact_sheet:
        sheet = visualize.draw_groups(path, person, features)
        with new_file(options.contact_sheet) as file:
            sheet.save(file)
        say(f"contact sheet: {options.contact_sheet}")


def _report(groups: evaluation.Clustering) -> None:
    """Print parameters and numbers of groups, and warn of groups of several persons."""
    person = groups.labels
    count, unassigned = person.max() + 1, int((person == -1).sum())
    say(
        f"by --eps={groups.eps:g} --k1={groups.k1} --k2={groups.k2} "
        f"(silhouette {groups.silhouette:.3f}):"
    )
    say(
        f"{counted(len(person), 'image')}: {counted(count, 'person')}, "
        f"{counted(unassigned, 'image')} in no group"
    )
    if groups.largest > LARGEST:
        logging.warning(
            "One group has %.0f %% of the images and may be several persons. Look at "
            "--contact_sheet, and try a smaller --eps or --k1.",
            100 * groups.largest,
        )
    median = np.median(np.bincount(person[person >= 0])) if count else np.inf
    if groups.k1 > MANY * median:
        logging.warning(
            "--k1=%d is large: half of the groups have at most %d images, so most neighbors are of "
            "other persons. Try --k1=%d.",
            groups.k1,
            median,
            max(2, median),
        )


def _pairs(options: ClusterOptions) -> tuple[float, float] | None:
    """Return the distances of almost certain and of possible pairs; None if unknown."""
    card = None if options.features else options.source.pretrained
    if card is None:
        return None
    sure, possible = (card.thresholds[name]["value"] for name in PAIRS)
    return sure, possible


def _embedded(options: ClusterOptions) -> tuple[np.ndarray, np.ndarray, Labels | None]:
    """Return paths and features of images, and their labels if they are known."""
    if options.images:
        images = data.unlabeled(options.images)
    else:
        dataset = options.dataset_of(options.dataset, options.data_dir, "Images of a data set")
        checks.one_of(dataset.parts(), part=options.part)
        images = dataset.parts()[options.part]
    import_keras()
    images = data.readable(images, progress=progress("reading images"))
    columns = images.per_tracklet()
    rows = ~(columns.distractor | columns.unlabeled)
    labels = None if options.images else (columns.identity[rows], rows)
    return columns.path, options.embedder()(images), labels


def _stored(options: ClusterOptions) -> tuple[None, np.ndarray, Labels | None]:
    """Return features of a file, and their labels if they are known."""
    features, stored = stored_embeddings(str(options.features), "features")
    labels = None
    if stored.identity is not None:
        rows = ~unlabeled(stored, stored.identity)
        labels = stored.identity[rows], rows
    return None, features, labels


def _name(person: int) -> str:
    return "unassigned" if person < 0 else f"person_{person + 1:04d}"


def _write_folders(path: np.ndarray, person: np.ndarray, root: Path) -> None:
    """Copy images as `ROW_NAME`, because files in several folders may have one name."""
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
