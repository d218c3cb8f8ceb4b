"""Data sets of two cameras, split into random halves of the persons."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_reid.data.datasets import ReidDataset
from keras_reid.data.images import TRACKLET
from keras_reid.data.readers.layouts import Track, image_files, level, named, of_tracks, subfolders
from keras_reid.errors import invalid_file

PRID2011_SHARED_PERSONS = 200


class Layout(NamedTuple):
    """Folders of two cameras.

    Attributes:
        cameras: the folders of the cameras.
        pattern: begins the name of an image, or of a person's folder, with the number as group 1.
        example: a name that matches.
        shared: persons with higher numbers are in one camera only; None: no limit.
    """

    cameras: tuple[str, str]
    pattern: str
    example: str
    shared: int | None = None


VIPER = Layout(("cam_a", "cam_b"), r"(\d+)_", "000_45.bmp")
PRID = Layout(("cam_a", "cam_b"), r"person_(\d+)", "person_0001", PRID2011_SHARED_PERSONS)
ILIDS = Layout(("cam1", "cam2"), r"person(\d+)", "person001")


def read_viper(root: Path, seed: int = 0) -> ReidDataset:
    """Read `cam_a/000_45.bmp` and `cam_b/000_90.bmp` of person 000 (Gray et al., PETS 2007).

    `numpy.random.default_rng(seed)` draws half of the persons to train on (316 of 632). Of the
    other persons, cam_a is the query and cam_b the gallery. Scores are usually averaged over seeds.
    """
    return _read("viper", level(root, "VIPeR"), VIPER, seed)


def read_prid2011(root: Path, seed: int = 0) -> ReidDataset:
    """Read PRID2011, single shot: both cameras saw persons 1 to 200 (Hirzer et al., SCIA 2011).

    `numpy.random.default_rng(seed)` draws half of these persons to train on. Of the other persons,
    cam_a is the query and cam_b the gallery, which has 549 further persons.
    """
    return _read("prid2011", level(level(root, "prid_2011"), "single_shot"), PRID, seed)


def read_ilids_vid(root: Path, seed: int = 0, least: int = 1) -> ReidDataset:
    """Read iLIDS-VID: 300 persons, half for training; cam1 is the query, cam2 the gallery."""
    root = level(level(root, "i-LIDS-VID", "iLIDS-VID"), "sequences")
    return _read("ilids-vid", root, ILIDS, seed, least)


def read_prid2011_video(root: Path, seed: int = 0, least: int = 21) -> ReidDataset:
    """Read PRID2011, multi shot: 178 persons with at least 21 frames in both cameras.

    Half of the persons are for training. Of the other persons, cam_a is the query and cam_b the
    gallery.
    """
    return _read("prid2011-video", level(level(root, "prid_2011"), "multi_shot"), PRID, seed, least)


def _read(
    name: str, root: Path, layout: Layout, seed: int, least: int | None = None
) -> ReidDataset:
    """Read tracklets of at least `least` frames; None reads single images."""
    sides = [_side(root, layout, camera, least) for camera in (1, 2)]
    both = sorted(p for p in sides[0].keys() & sides[1].keys() if p <= (layout.shared or p))
    if len(both) < 2:
        images = "images" if least is None else f"{least} frames"
        rule = f"hold at least two persons with {images} in both"
        raise invalid_file(root, f"{rule} cameras", len(both), "Restore the missing images.")
    shuffled = np.random.default_rng(seed).permutation(both).tolist()
    train, test = sorted(shuffled[: len(both) // 2]), sorted(shuffled[len(both) // 2 :])
    others = [person for person in sides[1] if person not in both] if least is None else []
    dataset = ReidDataset(
        name,
        train=of_tracks([side[person] for side in sides for person in train], root),
        query=of_tracks([sides[0][person] for person in test], root),
        gallery=of_tracks([sides[1][person] for person in (*test, *others)], root),
    )
    return dataset.map(lambda images: images.without(TRACKLET)) if least is None else dataset


def _side(root: Path, layout: Layout, camera: int, least: int | None) -> dict[int, Track]:
    """Return the images of a camera by person."""
    folder = root / layout.cameras[camera - 1]
    if least is None:
        groups = [(file, [file]) for file in image_files(folder)[0]]
    else:
        persons = subfolders(folder)
        groups = list(zip(persons, image_files(*persons), strict=True))
    side: dict[int, Track] = {}
    for path, files in groups:
        person = int(named(layout.pattern, path, layout.example)[1])
        side.setdefault(person, ([], person, camera))[0].extend(files)
    return {person: track for person, track in side.items() if len(track[0]) >= (least or 1)}
