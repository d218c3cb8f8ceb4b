"""CUHK03 by its new protocol."""

import os
from pathlib import Path

import numpy as np

from keras_reid import checks
from keras_reid.data.images import ReidDataset
from keras_reid.data.readers.layouts import Row, columns, level
from keras_reid.data.readers.market import read_market
from keras_reid.errors import InputError
from keras_reid.io import matlab_indices, read_matlab


def read_cuhk03(root: Path, boxes: str = "detected") -> ReidDataset:
    """CUHK03, new protocol (Zhong et al., CVPR 2017), in either form that is passed around.

    Folders in the layout of Market-1501 under `detected` and `labeled` (or `root` is one of
    these), or `cuhk03_new_protocol_config_{boxes}.mat` with the extracted `images_{boxes}`.
    """
    checks.one_of(("detected", "labeled"), boxes=boxes)
    config = root / f"cuhk03_new_protocol_config_{boxes}.mat"
    if config.exists():
        return _cuhk03_mat(config, root / f"images_{boxes}")
    return read_market(level(root, "CUHK03-NP", "cuhk03-np"), "cuhk03", (boxes,))


def _cuhk03_mat(config: Path, folder: Path) -> ReidDataset:
    split = read_matlab(config, ("filelist", "labels", "train_idx", "query_idx", "gallery_idx"))
    names, labels = (np.atleast_1d(split[key]).ravel() for key in ("filelist", "labels"))
    if len(names) != len(labels) or labels.dtype.kind not in "iuf" or names.dtype.kind != "U":
        raise InputError(
            f"{config} has a label for each name of filelist, but {len(labels)} for {len(names)}: "
            "download it again"
        )

    def rows(part: str) -> list[Row]:
        found: list[Row] = []
        key = f"{part}_idx"
        for index in matlab_indices(split[key], len(names), f"{key} of {config}"):
            file = folder / names[index].item()
            if not os.path.isfile(file):
                raise InputError(f"{config} names {file}, which does not exist: restore it")
            # pair_person_view_image.png: the two views of a camera pair are the two cameras
            found.append((str(file), int(labels[index]), int(file.name.split("_")[2])))
        return found

    return ReidDataset("cuhk03", *(columns(rows(p), config) for p in ("train", "query", "gallery")))
