"""CUHK03 by its new protocol."""

from pathlib import Path

import numpy as np

from keras_reid import checks
from keras_reid.data.datasets import ReidDataset
from keras_reid.data.readers.layouts import PARTS, Row, check_exists, columns, level
from keras_reid.data.readers.market import read_market
from keras_reid.io import matlab_indices, parsing, read_matlab


def read_cuhk03(root: Path, boxes: str = "detected") -> ReidDataset:
    """Read CUHK03 in one of its two published forms (Zhong et al., CVPR 2017).

    One form is the layout of Market-1501 in the folders `detected` and `labeled`, or in `root`. The
    other one is `cuhk03_new_protocol_config_{boxes}.mat` with the images in `images_{boxes}`.
    """
    checks.one_of(("detected", "labeled"), boxes=boxes)
    config = root / f"cuhk03_new_protocol_config_{boxes}.mat"
    if config.exists():
        return _cuhk03_mat(config, root / f"images_{boxes}")
    return read_market(level(root, "CUHK03-NP", "cuhk03-np"), "cuhk03", (boxes,))


def _cuhk03_mat(config: Path, folder: Path) -> ReidDataset:
    split = read_matlab(config, ("filelist", "labels", "train_idx", "query_idx", "gallery_idx"))
    names, labels = (np.atleast_1d(split[key]).ravel() for key in ("filelist", "labels"))

    def rows(part: str) -> list[Row]:
        key = f"{part}_idx"
        indices = matlab_indices(split[key], len(names), f"{key} of {config}")
        files = [check_exists(folder / names[index].item(), config) for index in indices]
        # pair_person_view_image.png: the two views of a camera pair are the two cameras.
        cameras = [int(file.name.split("_")[2]) for file in files]
        return list(
            zip(map(str, files), labels[indices].astype(int).tolist(), cameras, strict=True)
        )

    rule, errors = "hold names of images and their labels", (TypeError, ValueError, IndexError)
    with parsing(config, rule, "Download it again.", errors):
        return ReidDataset("cuhk03", *(columns(rows(part), config) for part in PARTS))
