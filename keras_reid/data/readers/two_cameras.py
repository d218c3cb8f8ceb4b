"""Data sets of two cameras, half of whose persons are drawn to train on."""

from pathlib import Path

import numpy as np

from keras_reid.data.images import TRACKLET, ReidDataset
from keras_reid.data.readers.layouts import (
    Track,
    image_files,
    level,
    named,
    of_tracks,
    subfolders,
)
from keras_reid.errors import InputError

PRID2011_SHARED_PERSONS = 200

Side = dict[int, Track]  # the images of a camera by person


def read_viper(root: Path, seed: int = 0) -> ReidDataset:
    """VIPeR: `cam_a/000_45.bmp` and `cam_b/000_90.bmp` show person 000 (Gray et al., PETS 2007).

    `numpy.random.default_rng(seed)` draws the half of the persons to train on (316 of 632). Of
    the others cam_a is the query and cam_b the gallery. Scores are usually averaged over seeds.
    """
    return _images("viper", level(root, "VIPeR"), r"(\d+)_", "000_45.bmp", seed)


def read_prid2011(root: Path, seed: int = 0) -> ReidDataset:
    """PRID2011, single shot: persons 1 to 200 are seen by both cameras (Hirzer et al., SCIA 2011).

    `numpy.random.default_rng(seed)` draws the half of them to train on. Of the others cam_a is
    the query and cam_b the gallery, joined by the persons that only cam_b saw (549 of them).
    """
    root = level(level(root, "prid_2011"), "single_shot")
    shared = PRID2011_SHARED_PERSONS
    return _images("prid2011", root, r"person_(\d+)", "person_0001.png", seed, shared)


def _images(
    name: str, root: Path, pattern: str, example: str, seed: int, shared: int | None = None
) -> ReidDataset:
    sides: list[Side] = []
    for camera, folder in enumerate(("cam_a", "cam_b"), start=1):
        side: Side = {}
        for file in image_files(root / folder)[0]:
            person = int(named(pattern, file, example)[1])
            side.setdefault(person, ([], person, camera))[0].append(file)
        sides.append(side)
    train, test = _halves(name, root, sides, shared, seed, "images")
    others = [person for person in sides[1] if person not in (*train, *test)]
    dataset = _dataset(name, root, sides, train, test, [*test, *others])
    return dataset.map(lambda images: images.without(TRACKLET))


def read_ilids_vid(root: Path, seed: int = 0, least: int = 1) -> ReidDataset:
    """iLIDS-VID: 300 persons, half of them to train on; cam1 is the query, cam2 the gallery."""
    root = level(level(root, "i-LIDS-VID", "iLIDS-VID"), "sequences")
    return _tracks("ilids-vid", root, ("cam1", "cam2"), r"person(\d+)", seed, least)


def read_prid2011_video(root: Path, seed: int = 0, least: int = 21) -> ReidDataset:
    """PRID2011, multi shot: persons 1 to 200 with enough frames in both cameras (178 by default).

    Half of them are to train on; cam_a is the query and cam_b the gallery.
    """
    root = level(level(root, "prid_2011"), "multi_shot")
    shared = PRID2011_SHARED_PERSONS
    cameras = ("cam_a", "cam_b")
    return _tracks("prid2011-video", root, cameras, r"person_(\d+)", seed, least, shared)


def _tracks(
    name: str,
    root: Path,
    cameras: tuple[str, str],
    pattern: str,
    seed: int,
    least: int,
    shared: int | None = None,
) -> ReidDataset:
    sides: list[Side] = []
    for camera, folder in enumerate(cameras, start=1):
        persons = subfolders(root / folder)
        tracks = [
            (files, int(named(pattern, person, "person001")[1]), camera)
            for person, files in zip(persons, image_files(*persons), strict=True)
        ]
        sides.append({track[1]: track for track in tracks if len(track[0]) >= least})
    train, test = _halves(name, root, sides, shared, seed, f"{least} frames")
    return _dataset(name, root, sides, train, test, test)


def _dataset(
    name: str, root: Path, sides: list[Side], train: list[int], query: list[int], gallery: list[int]
) -> ReidDataset:
    """Return the images of persons: both cameras to train, the first as query."""
    return ReidDataset(
        name,
        train=of_tracks([side[person] for side in sides for person in train], root),
        query=of_tracks([sides[0][person] for person in query], root),
        gallery=of_tracks([sides[1][person] for person in gallery], root),
    )


def _halves(
    name: str, root: Path, sides: list[Side], shared: int | None, seed: int, what: str
) -> tuple[list[int], list[int]]:
    """Divide the persons in both cameras, up to number `shared`, to train and to test."""
    both = sorted(p for p in sides[0].keys() & sides[1].keys() if shared is None or p <= shared)
    if len(both) < 2:
        raise InputError(
            f"{name} needs two or more persons with {what} in both cameras: {root} has "
            f"{len(both)}; restore the missing images"
        )
    shuffled = np.random.default_rng(seed).permutation(both).tolist()
    return sorted(shuffled[: len(both) // 2]), sorted(shuffled[len(both) // 2 :])
