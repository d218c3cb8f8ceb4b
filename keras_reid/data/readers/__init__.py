"""Readers, a file for each family of data sets: from a folder as its authors ship it to columns."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from keras_reid import checks
from keras_reid.data.images import ReidDataset
from keras_reid.data.readers.cuhk03 import read_cuhk03
from keras_reid.data.readers.custom import read_csv, read_folder
from keras_reid.data.readers.market import read_market, read_synthetic
from keras_reid.data.readers.mars import read_duke_video, read_mars
from keras_reid.data.readers.msmt17 import read_msmt17
from keras_reid.data.readers.two_cameras import (
    read_ilids_vid,
    read_prid2011,
    read_prid2011_video,
    read_viper,
)
from keras_reid.names import expanded


class Reader(NamedTuple):
    """How a data set is read.

    Attributes:
        read: from its folder, and options, to the data set.
        layout: what the folder holds.
        options: arguments of `load` beside.
    """

    read: Callable[..., ReidDataset]
    layout: str
    options: str = ""


_MARKET = "folders bounding_box_train, query, bounding_box_test"
_HALVES = "seed=0 draws the half of the persons to train on"

READERS: dict[str, Reader] = {
    "market1501": Reader(
        partial(read_market, name="market1501", archive=("Market-1501-v15.09.15",)), _MARKET
    ),
    "dukemtmc-reid": Reader(
        partial(read_market, name="dukemtmc-reid", archive=("DukeMTMC-reID",)), _MARKET
    ),
    "msmt17": Reader(read_msmt17, "folders and lists of V1 or V2"),
    "cuhk03": Reader(read_cuhk03, "the new protocol", 'boxes="detected" or "labeled"'),
    "viper": Reader(read_viper, "cam_a and cam_b", _HALVES),
    "prid2011": Reader(read_prid2011, "single_shot/cam_a and cam_b", _HALVES),
    "csv": Reader(read_csv, "a table path, identity, camera and, if wanted, split and tracklet"),
    "folder": Reader(read_folder, "one folder for each identity, without cameras"),
    "synthetic": Reader(
        read_synthetic,
        "synthetic pedestrians, drawn first if the folder is empty or missing",
        "those of keras_reid.data.synthetic.generate",
    ),
    "mars": Reader(read_mars, "tracklets: bbox_train, bbox_test and info"),
    "dukemtmc-videoreid": Reader(
        read_duke_video,
        "tracklets: train, query, gallery with a folder for each identity and tracklet",
    ),
    "ilids-vid": Reader(
        read_ilids_vid,
        "tracklets: sequences/cam1/person001 and cam2",
        f"{_HALVES}, least=1 frames in both cameras",
    ),
    "prid2011-video": Reader(
        read_prid2011_video,
        "tracklets: multi_shot/cam_a/person_0001 and cam_b",
        f"{_HALVES}, least=21 frames in both cameras",
    ),
}


def load(name: str, root: str | os.PathLike[str], **options: Any) -> ReidDataset:
    """The data set of that name, read from the folder `root`; no image is opened.

    Args:
        name: of `READERS`, which says what each folder holds.
        root: the data set's folder, with or without the level that its archive adds
            (such as Market-1501-v15.09.15); for `csv` the table itself will do.
        options: of the reader, which `READERS` says.

    Returns:
        The parts that are there; a folder without bounding_box_train has `train=None`. Images of
        tracklets have a column "tracklet".

    Raises:
        InputError: an unknown name; a folder or file that is missing, empty or malformed, by name.
    """
    checks.one_of(READERS, dataset=name)
    return READERS[name].read(expanded(root), **options)
