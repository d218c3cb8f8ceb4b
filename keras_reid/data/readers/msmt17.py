"""MSMT17, with lists of images and identities."""

import re
from pathlib import Path

from keras_reid.data.datasets import ReidDataset
from keras_reid.data.readers.layouts import PARTS, Row, assemble, check_exists, level
from keras_reid.errors import invalid_file
from keras_reid.io import read_text

MSMT17_TRAIN_PERSONS = 1041


def read_msmt17(root: Path) -> ReidDataset:
    """Read `list_*.txt`, `train` and `test` (V1) or `mask_train_v2` and `mask_test_v2` (V2).

    `list_val.txt` lists other images of the training persons and is added: 32,621 images of 1,041
    persons, the training set of the paper (Wei et al., CVPR 2018). The test lists number their
    persons from 0, too, so 1,041 is added to these numbers.
    """
    root = level(root, "MSMT17_V1", "MSMT17_V2", "MSMT17")
    train, test = level(root, "mask_train_v2", "train"), level(root, "mask_test_v2", "test")
    validation = root / "list_val.txt"

    def read(listing: Path) -> list[Row]:
        if listing.name != "list_train.txt":
            return _msmt17_rows(listing, test, MSMT17_TRAIN_PERSONS)
        rows = _msmt17_rows(listing, train, 0)
        return rows + (_msmt17_rows(validation, train, 0) if validation.exists() else [])

    lists = {part: root / f"list_{part}.txt" for part in PARTS}
    return assemble("msmt17", root, lists, read)


def _msmt17_rows(listing: Path, folder: Path, offset: int) -> list[Row]:
    """Read lines `0000/0000_000_01_0303morning_0015_0.jpg 0`; the third field is the camera."""
    rows: list[Row] = []
    for number, line in enumerate(read_text(listing).splitlines(), start=1):
        place = f"{listing}, line {number}"
        match = re.fullmatch(r"(\S*?[^/_]+_[^/_]+_(\d{1,9})_\S*) (\d{1,9})\s*", line)
        if not match:
            rule = "be 'person/person_shot_camera_….jpg label'"
            raise invalid_file(place, rule, repr(line), "Restore the list.")
        file = check_exists(folder / match[1], place)
        rows.append((str(file), int(match[3]) + offset, int(match[2])))
    return rows
