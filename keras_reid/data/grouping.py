"""Tracklets: images of one person in one camera, one after the other."""

import re
from itertools import pairwise

import numpy as np

from keras_reid import checks
from keras_reid.data.images import TRACKLET, PersonImages, ReidDataset, joined
from keras_reid.errors import InputError
from keras_reid.names import natural

# Sequence (or track) and frame in the names of Market-1501, MARS and DukeMTMC.
NAMES = (
    re.compile(r"-?\d+_c\d+s(?P<sequence>\d+)_(?P<frame>\d+_\d+)"),
    re.compile(r"\S+C\d+T(?P<sequence>\d+)F(?P<frame>\d+)"),
    re.compile(r"\S+C\d+(?P<sequence>)_?F(?P<frame>\d+)", re.IGNORECASE),
)


def tracklets(images: PersonImages, gap: int | None = None) -> PersonImages:
    """The images in the order of identity, camera, sequence and frame, with a column "tracklet".

    Sequence and frame are read from file names as in Market-1501 (0002_c1s1_000451_03.jpg), MARS
    (0001C1T0002F003.jpg) and DukeMTMC (0001_c2_f0046182.jpg); of others all images of an identity
    and camera are one tracklet, in natural order of their names.

    Args:
        images: n images with cameras.
        gap: a tracklet ends where so many frames lie before its next image; None: nowhere.

    Raises:
        InputError: images without cameras, or a gap below 1.
    """
    if images.camera is None:
        raise InputError("a tracklet is of one camera: these images have none; give them cameras")
    if gap is not None:
        checks.at_least(1, "a number of frames, or None", gap=gap)
    if not len(images):
        raise InputError("tracklets are made of images: received none")
    identity, camera = images.identity.tolist(), images.camera.tolist()
    named = [_named(file) for file in images.path.tolist()]
    path = [natural(file) for file in images.path.tolist()]
    group = [(i, c, sequence) for i, c, (sequence, _) in zip(identity, camera, named, strict=True)]
    frame = [numbers for _, numbers in named]
    place = [(i, c, natural(sequence)) for i, c, sequence in group]
    order = sorted(range(len(images)), key=lambda row: (place[row], frame[row], path[row]))
    number = [0]
    for before, row in pairwise(order):
        known = bool(frame[before] and frame[row])
        far = gap is not None and known and frame[row][0] - frame[before][0] > gap
        number.append(number[-1] + (group[row] != group[before] or far))
    return images[order].with_columns(**{TRACKLET: np.array(number)})


def _named(path: str) -> tuple[str, list[int]]:
    """The sequence and the numbers of the frame in a file's name, as far as it has them."""
    name = re.split(r"[\\/]", path)[-1]
    for pattern in NAMES:
        if match := pattern.match(name):
            return match["sequence"], [int(number) for number in match["frame"].split("_")]
    return "", []


def tracklet_dataset(dataset: ReidDataset, gap: int | None = None) -> ReidDataset:
    """The images of a data set as tracklets, tested as MARS is; one of tracklets as it is.

    Query and gallery images together are the test tracklets. All of them are the gallery, and of
    each identity and camera the first is a query, but for distractors. The protocol "mars" leaves
    out what is of the query's camera and identity, and so the query itself (Zheng et al.,
    ECCV 2016).

    Raises:
        InputError: as `tracklets`.
    """
    if any(part.has_tracklets for part in dataset.parts().values()):
        return dataset
    train = None if dataset.train is None else tracklets(dataset.train, gap)
    if dataset.query is None or dataset.gallery is None:
        return ReidDataset(dataset.name, train, None, None)
    whole = tracklets(joined(dataset.query, dataset.gallery), gap)
    return ReidDataset(dataset.name, train, first_tracklets(whole), whole)


def first_tracklets(images: PersonImages) -> PersonImages:
    """The first tracklet of each identity and camera, but for distractors: the queries of MARS."""
    each = images.per_tracklet()
    assert each.camera is not None  # refused by `tracklets`
    pairs = np.stack([each.classes()[1], np.unique(each.camera, return_inverse=True)[1]], axis=1)
    first = np.unique(pairs, axis=0, return_index=True)[1]
    return images[np.isin(images.owner, first[~each.distractor[first]])]
