"""Writing of any data set in the layout of Market-1501."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from keras_reid.data.images import PersonImages, ReidDataset
from keras_reid.data.readers.layouts import DISTRACTOR
from keras_reid.data.readers.market import MARKET_FOLDERS
from keras_reid.errors import invalid
from keras_reid.io import check_new_folder, new_folder, write_table
from keras_reid.names import expanded


def write(dataset: ReidDataset, root: str | os.PathLike[str]) -> None:
    """Copy the images to `root/{part}/{identity:04d}_c{camera}s1_{row:06d}_00.{suffix}`.

    Distractors get identity 0. Identities are numbered from 1, in order, if one is text or below 1,
    which the layout reserves for junk and distractors. Cameras are numbered if one is text or
    negative. `identities.csv` and `cameras.csv` list the names. `root` appears when it is complete.

    Raises:
        InputError: `root` is not empty, or a part has no cameras.
    """
    root = expanded(root).absolute()
    check_new_folder(root)
    for part, images in dataset.parts().items():
        if images.camera is None:
            fix = "Load the images from a CSV file with the columns path, identity, camera."
            raise invalid("camera", f"the camera of each image of {part}", None, fix)
    parts = dataset.parts().values()
    numbers = {
        "identity": _numbers([images.identity[~images.distractor] for images in parts], 1),
        "camera": _numbers([images.camera for images in parts if images.camera is not None], 0),
    }
    with new_folder(root) as staged:
        for part, images in dataset.parts().items():
            _copy(images, staged / MARKET_FOLDERS[part], numbers)
        for column, file in (("identity", "identities.csv"), ("camera", "cameras.csv")):
            if numbers[column]:
                rows = ((number, name) for name, number in numbers[column].items())
                write_table(staged / file, (column, "name"), rows)


def _numbers(columns: Iterable[np.ndarray], least: int) -> dict[int | str, int]:
    """Return numbers of labels from 1; empty if all are integers of at least `least`."""
    labels = {label for column in columns for label in column.tolist()}
    if all(isinstance(label, int) and label >= least for label in labels):
        return {}
    ordered = sorted(labels, key=lambda label: (isinstance(label, str), label))
    return {label: number for number, label in enumerate(ordered, start=1)}


def _copy(images: PersonImages, folder: Path, numbers: dict[str, dict[int | str, int]]) -> None:
    assert images.camera is not None  # checked by `write`
    folder.mkdir(parents=True)
    columns = (images.path, images.identity, images.camera, images.distractor)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for row, (path, identity, camera, distractor) in enumerate(rows):
        person = DISTRACTOR if distractor else numbers["identity"].get(identity, identity)
        name = f"{person:04d}_c{numbers['camera'].get(camera, camera)}s1_{row:06d}_00"
        shutil.copyfile(path, folder / f"{name}{Path(path).suffix.lower()}")
