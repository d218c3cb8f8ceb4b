"""Tracklets: consecutive images of one person in one camera."""

import re
from itertools import pairwise

import numpy as np

from keras_reid import checks
from keras_reid.data.datasets import ReidDataset, joined
from keras_reid.data.images import TRACKLET, PersonImages
from keras_reid.names import natural

# Sequence (or track) and frame in the names of Market-1501, MARS and DukeMTMC.
NAMES = (
    re.compile(r"-?\d+_c\d+s(?P<sequence>\d+)_(?P<frame>\d+_\d+)"),
    re.compile(r"\S+C\d+T(?P<sequence>\d+)F(?P<frame>\d+)"),
    re.compile(r"\S+C\d+(?P<sequence>)_?F(?P<frame>\d+)", re.IGNORECASE),
)


def tracklets(images: PersonImages, gap: int | None = None) -> PersonImages:
    """Return the images by identity, camera, sequence and frame, with a column "tracklet".

    Sequence and frame are read from file names as in Market-1501 (0002_c1s1_000451_03.jpg), MARS
    (0001C1T0002F003.jpg) and DukeMTMC (0001_c2_f0046182.jpg). Of other files, all images of an
    identity and camera are one tracklet, in natural order of their names.

    Args:
        images: n images with cameras.
        gap: number of frames between two images that begins a new tracklet; None: any number is
            allowed.

    Raises:
        InputError: no images, images without cameras, or a gap below 1.

    Example:
        >>> names = [f"0002_c1s1_{frame:06d}_00.jpg" for frame in (101, 151, 376)]
        >>> images = PersonImages(names, [2, 2, 2], [1, 1, 1])
        >>> tracklets(images, gap=100).columns["tracklet"].tolist()
        [0, 0, 1]
    """
    checks.at_least(1, images=len(images))
    if gap is not None:
        checks.at_least(1, gap=gap)
    identity, camera = images.identity.tolist(), images.require_cameras().tolist()
    named = [_named(file) for file in images.path.tolist()]
    path = [natural(file) for file in images.path.tolist()]
    group = [(i, c, sequence) for i, c, (sequence, _) in zip(identity, camera, named, strict=True)]
    frame = [numbers for _, numbers in named]
    place = [(i, c, natural(sequence)) for i, c, sequence in group]
    order = sorted(range(len(images)), key=lambda row: (place[row], frame[row], path[row]))
    number = [0]
    for before, row in pairwise(order):
        both = frame[before] and frame[row]
        far = gap is not None and both and frame[row][0] - frame[before][0] > gap
        number.append(number[-1] + (group[row] != group[before] or bool(far)))
    return images[order].with_columns(**{TRACKLET: np.array(number)})


def _named(path: str) -> tuple[str, list[int]]:
    """Return the sequence and the numbers of the frame in the name of a file, if any."""
    name = re.split(r"[\\/]", path)[-1]
    for pattern in NAMES:
        if match := pattern.match(name):
            return match["sequence"], [int(number) for number in match["frame"].split("_")]
    return "", []


def tracklet_dataset(dataset: ReidDataset, gap: int | None = None) -> ReidDataset:
    """Return the images of a data set as tracklets with the test of MARS (Zheng et al., ECCV 2016).

    Query and gallery images together are the test tracklets. The gallery contains all of them. The
    first of each identity and camera is a query, except distractors. The protocol "mars" excludes
    images of the same identity and camera, such as the query itself. A data set of tracklets is
    returned unchanged.

    Args:
        dataset: images with cameras.
        gap: see `tracklets`.

    Raises:
        InputError: see `tracklets`.
    """
    if any(part.has_tracklets for part in dataset.parts().values()):
        return dataset
    train = None if dataset.train is None else tracklets(dataset.train, gap)
    if dataset.query is None or dataset.gallery is None:
        return ReidDataset(dataset.name, train, None, None)
    whole = tracklets(joined(dataset.query, dataset.gallery), gap)
    return ReidDataset(dataset.name, train, first_tracklets(whole), whole)


def first_tracklets(images: PersonImages) -> PersonImages:
    """Return the queries of MARS: the first tracklet of each identity and camera."""
    each = images.per_tracklet()
    cameras = np.unique(each.require_cameras(), return_inverse=True)[1]
    pairs = np.stack([each.classes()[1], cameras], axis=1)
    first = np.unique(pairs, axis=0, return_index=True)[1]
    return images[np.isin(images.owner, first[~each.distractor[first]])]
