"""The layout of Market-1501, which many data sets use."""

import re
from pathlib import Path
from typing import Any

from keras_reid.data.datasets import ReidDataset
from keras_reid.data.readers.layouts import (
    DISTRACTOR,
    JUNK,
    Row,
    assemble,
    image_files,
    level,
    named,
)
from keras_reid.data.synthetic import generate

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MARKET_NAME = re.compile(r"(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg, 0001_c2_f0046182.jpg


def read_market(root: Path, name: str, archive: tuple[str, ...] = ()) -> ReidDataset:
    """Read images `{identity}_c{camera}…` in three folders.

    Identity −1 is junk (neither match nor mismatch) and dropped. Identity 0000 in the gallery alone
    marks distractors, which match no query (Zheng et al., ICCV 2015).
    """
    root = level(root, *archive)
    sources = {part: root / folder for part, folder in MARKET_FOLDERS.items()}
    return assemble(name, root, sources, _market_rows, DISTRACTOR)


def _market_rows(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for file in image_files(folder)[0]:
        match = named(MARKET_NAME, file, "0002_c1s1_000451_03.jpg")
        if int(match[1]) != JUNK:
            rows.append((str(file), int(match[1]), int(match[2])))
    return rows


def read_synthetic(root: Path, **options: Any) -> ReidDataset:
    """Read synthetic pedestrians.

    If there are options, or if the folder is missing or empty, draw the images first.
    """
    if options or not root.is_dir() or not any(root.iterdir()):
        generate(root, **options)
    return read_market(root, "synthetic")
