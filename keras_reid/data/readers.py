"""One function per data set: from its folder, laid out as its authors ship it, to columns."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.data.images import ReidDataset
from keras_reid.data.layouts import Row, assemble, columns, image_files, level
from keras_reid.data.synthetic import generate
from keras_reid.data.tables import read_csv, read_folder
from keras_reid.errors import InputError

JUNK = -1
MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MARKET_NAME = re.compile(r"(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg, 0001_c2_f0046182.jpg
MSMT17_TRAIN_PERSONS = 1041
PRID2011_SHARED_PERSONS = 200


def load(name: str, root: str | os.PathLike[str], **options: Any) -> ReidDataset:
    """The data set of that name, read from the folder `root`; no image is opened.

    Args:
        name: one of
            `market1501`, `dukemtmc-reid`: folders bounding_box_train, query, bounding_box_test;
            `msmt17`: folders and lists of V1 or V2;
            `cuhk03`: the new protocol; option `boxes="detected"` or `"labeled"`;
            `viper`, `prid2011`: cam_a and cam_b; option `seed=0` chooses the half to train on;
            `csv`: a table path, identity, camera and, if wanted, split;
            `folder`: one folder per identity, without cameras;
            `synthetic`: synthetic pedestrians, made in `root` first if it is empty or missing; its
            options are those of `keras_reid.data.synthetic.generate`.
        root: the data set's folder, with or without the level that its archive adds
            (such as Market-1501-v15.09.15); for `csv` the table itself will do.
        options: as named above.

    Returns:
        The parts that are there; a folder without bounding_box_train has `train=None`.

    Raises:
        InputError: an unknown name; a folder or file that is missing, empty or malformed, by name.
    """
    checks.one_of(READERS, dataset=name)
    return READERS[name](Path(root).expanduser(), **options)


def read_market(root: Path, name: str, archive: tuple[str, ...] = ()) -> ReidDataset:
    """The layout of Market-1501: `{identity}_c{camera}…` in three folders.

    Identity −1 is junk (neither match nor mismatch) and dropped; 0000, the distractors, stay as
    gallery images that match nobody (Zheng et al., ICCV 2015).
    """
    root = level(root, *archive)
    sources = {part: root / folder for part, folder in MARKET_FOLDERS.items()}
    return assemble(name, root, sources, _market_rows)


def _market_rows(folder: Path) -> list[Row]:
    rows: list[Row] = []
    for file in image_files(folder):
        match = MARKET_NAME.match(file.name)
        if not match:
            raise InputError(
                "a file here must be named identity_c…, such as 0002_c1s1_000451_03.jpg, "
                f"but {file} is not: rename it or move it away"
            )
        if int(match[1]) != JUNK:
            rows.append((str(file), int(match[1]), int(match[2])))
    return rows


def read_msmt17(root: Path) -> ReidDataset:
    """MSMT17: `list_*.txt` beside `train`, `test` (V1) or `mask_train_v2`, `mask_test_v2` (V2).

    `list_val.txt` holds other images of the training persons and joins them: 32,621 images of
    1,041 persons, the training set of the paper (Wei et al., CVPR 2018). The test lists count
    their persons from 0 again, so 1,041 is added to tell them from the training persons.
    """
    root = level(root, "MSMT17_V1", "MSMT17_V2", "MSMT17")
    train, test = level(root, "mask_train_v2", "train"), level(root, "mask_test_v2", "test")
    validation = root / "list_val.txt"

    def read(listing: Path) -> list[Row]:
        if listing.name != "list_train.txt":
            return _msmt17_rows(listing, test, MSMT17_TRAIN_PERSONS)
        rows = _msmt17_rows(listing, train, 0)
        return rows + (_msmt17_rows(validation, train, 0) if validation.exists() else [])

    lists = {part: root / f"list_{part}.txt" for part in ("train", "query", "gallery")}
    return assemble("msmt17", root, lists, read)


def _msmt17_rows(listing: Path, folder: Path, offset: int) -> list[Row]:
    """`0000/0000_000_01_0303morning_0015_0.jpg 0`: the camera is the third field of the name."""
    rows: list[Row] = []
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), start=1):
        match = re.fullmatch(r"(\S*?[^/_]+_[^/_]+_(\d+)_\S*) (\d+)\s*", line)
        if not match:
            raise InputError(
                f"line {number} of {listing} must be 'person/person_shot_camera_….jpg label', "
                f"got {line!r}: restore the list"
            )
        file = folder / match[1]
        if not file.is_file():
            raise InputError(
                f"line {number} of {listing} names {file}, which does not exist: restore it"
            )
        rows.append((str(file), int(match[3]) + offset, int(match[2])))
    return rows


def read_cuhk03(root: Path, boxes: str = "detected") -> ReidDataset:
    """CUHK03, new protocol (Zhong et al., CVPR 2017), in either form that is passed around.

    Folders in the layout of Market-1501 under `detected` and `labeled` (or `root` is one of
    these), or `cuhk03_new_protocol_config_{boxes}.mat` with the extracted `images_{boxes}`.
    """
    if boxes not in ("detected", "labeled"):
        raise InputError(f"boxes must be 'detected' or 'labeled', got {boxes!r}")
    config = root / f"cuhk03_new_protocol_config_{boxes}.mat"
    if config.exists():
        return _cuhk03_mat(config, root / f"images_{boxes}")
    return read_market(level(root, "CUHK03-NP", "cuhk03-np"), "cuhk03", (boxes,))


def _cuhk03_mat(config: Path, folder: Path) -> ReidDataset:
    split = matlab(config, ("filelist", "labels", "train_idx", "query_idx", "gallery_idx"))
    labels = split["labels"].ravel()

    def rows(part: str) -> list[Row]:
        found: list[Row] = []
        for index in split[f"{part}_idx"].ravel().astype(int) - 1:  # MATLAB counts from 1
            file = folder / split["filelist"].ravel()[index].item()
            if not file.is_file():
                raise InputError(f"{config} names {file}, which does not exist: restore it")
            # pair_person_view_image.png: the two views of a camera pair are the two cameras
            found.append((str(file), int(labels[index]), int(file.name.split("_")[2])))
        return found

    return ReidDataset("cuhk03", *(columns(rows(p), config) for p in ("train", "query", "gallery")))


def matlab(file: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays of a MATLAB file."""
    try:
        from scipy.io import loadmat
        from scipy.io.matlab import MatReadError
    except ImportError as error:
        raise InputError(
            f"reading {file} needs scipy, which is not installed: run 'pip install scipy', "
            "or use the folders of CUHK03-NP"
        ) from error
    try:
        values = loadmat(file)
    except (MatReadError, NotImplementedError, ValueError) as error:
        raise InputError(
            f"{file} must be a MATLAB file of version 7 or older, but reading it gave "
            f"'{error}': download it again"
        ) from error
    missing = [key for key in keys if key not in values]
    if missing:
        raise InputError(
            f"{file} must hold {', '.join(keys)}, but {missing[0]} is missing: download it again"
        )
    return values


def read_viper(root: Path, seed: int = 0) -> ReidDataset:
    """VIPeR: `cam_a/000_45.bmp` and `cam_b/000_90.bmp` show person 000 (Gray et al., PETS 2007).

    `numpy.random.default_rng(seed)` draws the half of the persons to train on (316 of 632). Of
    the others cam_a is the query and cam_b the gallery. Scores are usually averaged over seeds.
    """
    return _two_cameras("viper", level(root, "VIPeR"), r"(\d+)_", None, seed)


def read_prid2011(root: Path, seed: int = 0) -> ReidDataset:
    """PRID2011, single shot: persons 1 to 200 are seen by both cameras (Hirzer et al., SCIA 2011).

    `numpy.random.default_rng(seed)` draws the half of them to train on. Of the others cam_a is
    the query and cam_b the gallery, joined by the persons that only cam_b saw (549 of them).
    """
    root = level(level(root, "prid_2011"), "single_shot")
    return _two_cameras("prid2011", root, r"person_(\d+)", PRID2011_SHARED_PERSONS, seed)


def _two_cameras(name: str, root: Path, pattern: str, shared: int | None, seed: int) -> ReidDataset:
    a = _one_camera(root / "cam_a", pattern, 1)
    b = _one_camera(root / "cam_b", pattern, 2)
    both = sorted({row[1] for row in a} & {row[1] for row in b})
    both = [person for person in both if shared is None or person <= shared]
    if len(both) < 2:
        raise InputError(
            f"{name} needs two or more persons seen by both cameras, but {root / 'cam_a'} and "
            f"{root / 'cam_b'} share {len(both)}: restore the missing images"
        )
    shuffled = np.random.default_rng(seed).permutation(both).tolist()
    train, test = set(shuffled[: len(both) // 2]), set(shuffled[len(both) // 2 :])
    return ReidDataset(
        name,
        train=columns([row for row in a + b if row[1] in train], root),
        query=columns([row for row in a if row[1] in test], root),
        gallery=columns([row for row in b if row[1] not in train], root),
    )


def _one_camera(folder: Path, pattern: str, camera: int) -> list[tuple[str, int, int]]:
    rows = []
    for file in image_files(folder):
        match = re.match(pattern, file.name)
        if not match:
            raise InputError(
                f"a file here must be named like the pattern {pattern}, but {file} is not: "
                "rename it or move it away"
            )
        rows.append((str(file), int(match[1]), camera))
    return rows


def read_synthetic(root: Path, **options: Any) -> ReidDataset:
    """Synthetic pedestrians; with options, or an empty or missing folder, they are drawn first."""
    if options or not root.is_dir() or not any(root.iterdir()):
        generate(root, **options)
    return read_market(root, "synthetic")


READERS: dict[str, Callable[..., ReidDataset]] = {
    "market1501": partial(read_market, name="market1501", archive=("Market-1501-v15.09.15",)),
    "dukemtmc-reid": partial(read_market, name="dukemtmc-reid", archive=("DukeMTMC-reID",)),
    "msmt17": read_msmt17,
    "cuhk03": read_cuhk03,
    "viper": read_viper,
    "prid2011": read_prid2011,
    "csv": read_csv,
    "folder": read_folder,
    "synthetic": read_synthetic,
}
