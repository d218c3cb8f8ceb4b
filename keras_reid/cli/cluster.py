"""`python cluster.py --run=RUN --images=DIR --out=DIR`: groups images by the person they show."""

import csv
import shutil
from pathlib import Path

import numpy as np
from absl import flags, logging

from keras_reid import data, evaluation, visualize
from keras_reid.cli.shared import (
    FLAGS,
    check_one_model,
    command,
    embedder_of,
    progress,
    refuse_existing,
    say,
)
from keras_reid.errors import InputError
from keras_reid.evaluation.clusters import METHODS
from keras_reid.files import new_file, new_folder

flags.DEFINE_string("saved_model", None, "An exported export/NAME/VERSION folder instead.")
flags.DEFINE_string("images", None, "Folder of images, with those in its folders, unlabelled.")
flags.DEFINE_string("features", None, "Instead of images: an .npz file of features.")
flags.DEFINE_enum(
    "part", "gallery", ["train", "query", "gallery"], "Of a --dataset, whose labels score it."
)
flags.DEFINE_string("out", None, "New folder for copies, one folder for each person.")
flags.DEFINE_string("csv", None, "New CSV file with columns path, person.")
flags.DEFINE_string("sheet", None, "New picture: a row of images for each of the largest groups.")
flags.DEFINE_enum("method", "dbscan", list(METHODS), "How groups are made.")
flags.DEFINE_float(
    "eps",
    None,
    "Jaccard distance up to which images are together; default: chosen from the images.",
)
flags.DEFINE_integer("min_samples", 4, "Of dbscan: images that make a group.", lower_bound=1)
flags.DEFINE_integer(
    "k1", None, "Neighbours to each image; default: chosen from the images.", lower_bound=1
)
flags.DEFINE_integer(
    "k2", None, "Images whose encodings are averaged; default: 0.3 k1, from 2 to 6.", lower_bound=1
)

LARGEST = 0.2  # fraction of the images, beyond which a group is suspicious
OUTPUTS = ("out", "csv", "sheet")


def main(argv: list[str]) -> None:
    """Reads the flags, embeds, groups, and writes the groups in each form that was asked for."""
    refuse_existing(*OUTPUTS)
    if FLAGS.sheet and Path(FLAGS.sheet).suffix.lower() not in data.SUFFIXES:
        raise InputError(
            f"--sheet is a picture, named *{', *'.join(data.SUFFIXES)}: received {FLAGS.sheet!r}"
        )
    if FLAGS.features and (FLAGS.out or FLAGS.sheet):
        raise InputError("--out and --sheet need images: features alone are grouped to --csv")
    path, features, labels = _stored() if FLAGS.features else _embedded()
    found = evaluation.clustering(
        features,
        FLAGS.method,
        FLAGS.eps,
        FLAGS.min_samples,
        FLAGS.k1,
        FLAGS.k2,
        progress("neighbours"),
    )
    person = found.labels
    groups, left = person.max() + 1, int((person == -1).sum())
    say(
        f"by --eps={found.eps:g} --k1={found.k1} --k2={found.k2} "
        f"(silhouette {found.silhouette:.3f}):"
    )
    say(f"{len(person):,} images: {groups:,} persons, {left:,} images in no group")
    if found.largest > LARGEST:
        logging.warning(
            "one group holds %.0f %% of the images and may be several persons: look at --sheet; a "
            "smaller --eps or --k1 takes it apart",
            100 * found.largest,
        )
    if labels is not None:
        say(str(evaluation.cluster_scores(labels, person)))
    if FLAGS.out and path is not None:
        _write_folders(path, person, Path(FLAGS.out))
    if FLAGS.csv:
        _write_csv(path, person, Path(FLAGS.csv))
    if FLAGS.sheet:
        sheet = visualize.draw_groups(path, person)
        with new_file(FLAGS.sheet) as file:
            sheet.save(file)
    for name in OUTPUTS:
        if FLAGS[name].value:
            say(f"written to {FLAGS[name].value}")


def _embedded() -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Paths and features of images, and who they show if that is known."""
    if (FLAGS.images is None) == (FLAGS.dataset is None):
        raise InputError("name what to group: give either --images or --dataset with --data_dir")
    if FLAGS.images:
        images = data.unlabelled(FLAGS.images)
    else:
        if FLAGS.data_dir is None:
            raise InputError("a data set is read from a folder: give --data_dir")
        parts = data.load(FLAGS.dataset, FLAGS.data_dir).parts()
        if FLAGS.part not in parts:
            raise InputError(f"--part is one of {', '.join(parts)} here: received {FLAGS.part!r}")
        images = parts[FLAGS.part]
    check_one_model()
    images = data.readable(images)
    features = embedder_of()(images)
    return images.path, features, None if FLAGS.images else images.identity


def _stored() -> tuple[None, np.ndarray, np.ndarray | None]:
    if FLAGS.run or FLAGS.saved_model or FLAGS.images or FLAGS.dataset:
        raise InputError("--features stands instead of a model and images: name one of the two")
    stored = evaluation.load_features(FLAGS.features)
    if "embedding" not in stored.features:
        raise InputError(f"images are grouped by embeddings: {FLAGS.features} has stripes alone")
    return None, stored.features["embedding"], stored.identity


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


run = command(
    main,
    "run",
    "saved_model",
    "images",
    "features",
    "dataset",
    "data_dir",
    "out",
    "csv",
    "sheet",
    "method",
)
