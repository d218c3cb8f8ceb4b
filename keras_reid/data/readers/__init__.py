"""Readers: from the published folder of a data set to columns. A file for each family of data sets.

A new reader is a function in such a file, and a line in `READERS`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from keras_reid import checks
from keras_reid.data.datasets import ReidDataset
from keras_reid.data.readers import cuhk03, custom, market, mars, msmt17, two_cameras
from keras_reid.names import StrPath, expanded


def _market(name: str, archive: str) -> Callable[..., ReidDataset]:
    return partial(market.read_market, name=name, archive=(archive,))


# Functions of the folder and of options, which their documentation lists.
READERS: dict[str, Callable[..., ReidDataset]] = {
    "market1501": _market("market1501", "Market-1501-v15.09.15"),
    "dukemtmc-reid": _market("dukemtmc-reid", "DukeMTMC-reID"),
    "msmt17": msmt17.read_msmt17,
    "cuhk03": cuhk03.read_cuhk03,
    "viper": two_cameras.read_viper,
    "prid2011": two_cameras.read_prid2011,
    "csv": custom.read_csv,
    "folder": custom.read_folder,
    "synthetic": market.read_synthetic,
    "mars": mars.read_mars,
    "dukemtmc-videoreid": mars.read_duke_video,
    "ilids-vid": two_cameras.read_ilids_vid,
    "prid2011-video": two_cameras.read_prid2011_video,
}


def load(name: str, root: StrPath, **options: Any) -> ReidDataset:
    """Return the data set of that name, read from the folder `root`; no image is opened.

    Args:
        name: key of `READERS`.
        root: folder of the data set, with or without the level that its archive adds
            (such as Market-1501-v15.09.15); for `csv` also the table.
        options: arguments of `READERS[name]`, such as `boxes="labeled"` for `cuhk03` and
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
    return READERS[name](expanded(root), **options)
