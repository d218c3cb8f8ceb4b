"""Readers: from the published folder of a data set to columns. A file for each family of data sets.

A new reader is a function in such a file, and a line in `READERS`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from keras_reid import checks
from keras_reid.data.datasets import ReidDataset
from keras_reid.data.readers import cuhk03, custom, market, mars, msmt17, two_cameras
from keras_reid.names import StrPath, expanded


class Reader(NamedTuple):
    """Reader of a data set.

    Attributes:
        read: function of the folder and of options, which its documentation lists.
        layout: description of the folder, for the help of commands.
    """

    read: Callable[..., ReidDataset]
    layout: str


def _market(name: str, archive: str) -> Reader:
    read = partial(market.read_market, name=name, archive=(archive,))
    return Reader(read, "folders bounding_box_train, query, bounding_box_test")


READERS: dict[str, Reader] = {
    "market1501": _market("market1501", "Market-1501-v15.09.15"),
    "dukemtmc-reid": _market("dukemtmc-reid", "DukeMTMC-reID"),
    "msmt17": Reader(msmt17.read_msmt17, "folders and lists of V1 or V2"),
    "cuhk03": Reader(cuhk03.read_cuhk03, "the new protocol"),
    "viper": Reader(two_cameras.read_viper, "cam_a and cam_b"),
    "prid2011": Reader(two_cameras.read_prid2011, "single_shot/cam_a and cam_b"),
    "csv": Reader(
        custom.read_csv, "a table path, identity, camera and optionally split and tracklet"
    ),
    "folder": Reader(custom.read_folder, "one folder for each identity, without cameras"),
    "synthetic": Reader(
        market.read_synthetic,
        "synthetic pedestrians, drawn first if the folder is empty or missing",
    ),
    "mars": Reader(mars.read_mars, "tracklets: bbox_train, bbox_test and info"),
    "dukemtmc-videoreid": Reader(
        mars.read_duke_video,
        "tracklets: train, query, gallery with a folder for each identity and tracklet",
    ),
    "ilids-vid": Reader(two_cameras.read_ilids_vid, "tracklets: sequences/cam1/person001 and cam2"),
    "prid2011-video": Reader(
        two_cameras.read_prid2011_video, "tracklets: multi_shot/cam_a/person_0001 and cam_b"
    ),
}


def load(name: str, root: StrPath, **options: Any) -> ReidDataset:
    """Return the data set of that name, read from the folder `root`; no image is opened.

    Args:
        name: key of `READERS`.
        root: folder of the data set, with or without the level that its archive adds
            (such as Market-1501-v15.09.15); for `csv` also the table.
        options: arguments of `READERS[name].read`, such as `boxes="labeled"` for `cuhk03` and
            `seed=0` for data sets that are split at random.

    Returns:
        The existing parts; a folder without bounding_box_train has `train=None`. Images of
        tracklets have a column "tracklet".

    Raises:
        InputError: an unknown name; a missing, empty or malformed folder or file.

    Example:
        >>> import os, tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for person in ("ann", "bob"):
        ...         os.mkdir(f"{folder}/{person}")
        ...         Image.new("RGB", (8, 16)).save(f"{folder}/{person}/1.png")
        ...     print(load("folder", folder).train)
        PersonImages(2 images, 2 identities, no cameras)
    """
    checks.one_of(READERS, dataset=name)
    return READERS[name].read(expanded(root), **options)
