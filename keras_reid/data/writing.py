"""Saves any data set in the layout of Market-1501."""

import csv
import os
import shutil
from pathlib import Path

from keras_reid.data.images import PersonImages, ReidDataset
from keras_reid.data.readers.market import MARKET_FOLDERS
from keras_reid.errors import InputError
from keras_reid.files import new_folder


def write(dataset: ReidDataset, root: str | os.PathLike[str]) -> None:
    """Copies the images to `root/{part}/{identity:04d}_c{camera}s1_{row:06d}_00.{suffix}`.

    The files are copied as they are, and `root` appears when all are. Text identities are
    numbered from 1 in the order of the alphabet, and `identities.csv` says which is which.

    Raises:
        InputError: `root` is not empty, or the data has no cameras, which the layout cannot say.
    """
    root = Path(root).expanduser().absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(
            f"a data set is written to a new or empty folder, but {root} holds something: "
            "name another folder"
        )
    for part, images in dataset.parts().items():
        if images.camera is None:
            raise InputError(
                "the layout of Market-1501 needs a camera for every image, but "
                f"{part} of {dataset.name} has none: describe the images in a CSV with the "
                "columns path, identity, camera and load that"
            )
    numbers = _numbers(dataset)
    with new_folder(root) as staged:
        for part, images in dataset.parts().items():
            _copy(images, staged / MARKET_FOLDERS[part], numbers)
        _write_identities(numbers, staged)


def _numbers(dataset: ReidDataset) -> dict[str, int]:
    """Text labels to 1, 2, …; integer labels stand for themselves and are not in it."""
    labels = {label for images in dataset.parts().values() for label in images.identity.tolist()}
    names = sorted(label for label in labels if isinstance(label, str))
    return {name: number for number, name in enumerate(names, start=1)}


def _copy(images: PersonImages, folder: Path, numbers: dict[str, int]) -> None:
    assert images.camera is not None  # refused by `write`
    folder.mkdir(parents=True)
    columns = (images.path.tolist(), images.identity.tolist(), images.camera.tolist())
    for row, (path, identity, camera) in enumerate(zip(*columns, strict=True)):
        name = f"{numbers.get(identity, identity):04d}_c{camera}s1_{row:06d}_00"
        shutil.copyfile(path, folder / f"{name}{Path(path).suffix.lower()}")


def _write_identities(numbers: dict[str, int], folder: Path) -> None:
    if not numbers:
        return
    with (folder / "identities.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("identity", "name"))
        table.writerows((number, name) for name, number in numbers.items())
