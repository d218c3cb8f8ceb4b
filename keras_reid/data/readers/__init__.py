"""Readers: from the published folder of a data set to columns. A file for each family of data sets.

A new reader is a function in such a file, and a line in `READERS`.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from keras_reid import checks
from keras_reid.data.images import ReidDataset
from keras_reid.data.readers import cuhk03, custom, market, mars, msmt17, two_cameras
from keras_reid.names import expanded


class Reader(NamedTuple):
    """Reader of a data set.

    Attributes:
        read: function of the folder and options that returns the data set.
        layout: description of the folder, which the help of `--dataset` prints.
        options: further arguments of `load`.
    """

    read: Callable[..., ReidDataset]
    layout: str
    options: str = ""


_MARKET = "folders bounding_box_train, query, bounding_box_test"
_HALVES = "seed=0 draws the half of the persons to train on"

READERS: dict[str, Reader] = {
    "market1501": Reader(
        partial(market.read_market, name="market1501", archive=("Market-1501-v15.09.15",)), _MARKET
    ),
    "dukemtmc-reid": Reader(
        partial(market.read_market, name="dukemtmc-reid", archive=("DukeMTMC-reID",)), _MARKET
    ),
    "msmt17": Reader(msmt17.read_msmt17, "folders and lists of V1 or V2"),
    "cuhk03": Reader(cuhk03.read_cuhk03, "the new protocol", 'boxes="detected" or "labeled"'),
    "viper": Reader(two_cameras.read_viper, "cam_a and cam_b", _HALVES),
    "prid2011": Reader(two_cameras.read_prid2011, "single_shot/cam_a and cam_b", _HALVES),
    "csv": Reader(
        custom.read_csv, "a table path, identity, camera and, if wanted, split and tracklet"
    ),
    "folder": Reader(custom.read_folder, "one folder for each identity, without cameras"),
    "synthetic": Reader(
        market.read_synthetic,
        "synthetic pedestrians, drawn first if the folder is empty or missing",
        "those of keras_reid.data.synthetic.generate",
    ),
    "mars": Reader(mars.read_mars, "tracklets: bbox_train, bbox_test and info"),
    "dukemtmc-videoreid": Reader(
        mars.read_duke_video,
        "tracklets: train, query, gallery with a folder for each identity and tracklet",
    ),
    "ilids-vid": Reader(
        two_cameras.read_ilids_vid,
        "tracklets: sequences/cam1/person001 and cam2",
        f"{_HALVES}, least=1 frames in both cameras",
    ),
    "prid2011-video": Reader(
        two_cameras.read_prid2011_video,
        "tracklets: multi_shot/cam_a/person_0001 and cam_b",
        f"{_HALVES}, least=21 frames in both cameras",
    ),
}


def load(name: str, root: str | os.PathLike[str], **options: Any) -> ReidDataset:
    """Return the data set of that name, read from the folder `root`; no image is opened.

    Args:
        name: key of `READERS`.
        root: folder of the data set, with or without the level that its archive adds
            (such as Market-1501-v15.09.15); for `csv` also the table.
        options: arguments of the reader, see `READERS`.

    Returns:
        The existing parts; a folder without bounding_box_train has `train=None`. Images of
        tracklets have a column "tracklet".

    Raises:
        InputError: an unknown name; a missing, empty or malformed folder or file.
    """
    checks.one_of(READERS, dataset=name)
    return READERS[name].read(expanded(root), **options)
