"""Tracklets of many cameras: MARS, and DukeMTMC-VideoReID."""

import re
from itertools import chain
from pathlib import Path

import numpy as np

from keras_reid.data.datasets import ReidDataset
from keras_reid.data.grouping import first_tracklets
from keras_reid.data.images import PersonImages
from keras_reid.data.readers.layouts import (
    DISTRACTOR,
    JUNK,
    PARTS,
    Track,
    check_exists,
    image_files,
    level,
    named,
    of_tracks,
    subfolders,
    with_distractors,
)
from keras_reid.errors import invalid_file
from keras_reid.io import matlab_indices, read_matlab, read_text

MARS_NAME = re.compile(r"(?:00)?(-?\d+)C(\d+)T(\d+)F(\d+)")  # junk is 00-1
DUKE_NAME = re.compile(r"(\d+)_?[Cc](\d+)_?[Ff](\d+)")


def read_mars(root: Path) -> ReidDataset:
    """Read MARS. If there is no `info/tracks_*_info.mat`, file names define the tracks.

    Junk (00-1) is left out; the distractors (0000 in the gallery) stay. The gallery contains the
    queries.
    """
    root = level(root, "MARS", "mars")
    info = level(root, "info")
    train, gallery = (_mars_tracks(root / f"bbox_{part}", info, part) for part in ("train", "test"))
    queries = info / "query_IDX.mat"
    query = None
    if queries.exists():
        rows = read_matlab(queries, ("query_IDX",))["query_IDX"]
        chosen = matlab_indices(rows, len(gallery), f"query_IDX of {queries}")
        query = _images([gallery[i] for i in chosen], root)
    trained = _images(train, root)
    images = with_distractors(_images(gallery, root), DISTRACTOR, trained, query)
    return ReidDataset("mars", trained, query or first_tracklets(images), images)


def _images(tracks: list[Track], source: Path) -> PersonImages:
    return of_tracks([track for track in tracks if track[1] != JUNK], source)


def _mars_tracks(folder: Path, info: Path, part: str) -> list[Track]:
    names, table = info / f"{part}_name.txt", info / f"tracks_{part}_info.mat"
    if names.exists() and table.exists():
        files = [folder / name[:4] / name for name in read_text(names).split()]
        tracks = []
        for first, last, identity, camera in _track_rows(table, f"track_{part}_info", len(files)):
            tracks.append((files[first - 1 : last], identity, camera))
        for shown, _, _ in tracks:
            if shown:
                check_exists(shown[0], names)
        return tracks
    groups: dict[tuple[int, int, int], list[Path]] = {}
    for file in chain.from_iterable(image_files(*subfolders(folder))):
        match = named(MARS_NAME, file, "0001C1T0001F001.jpg")
        identity, camera, track = (int(match[i]) for i in (1, 2, 3))
        groups.setdefault((identity, camera, track), []).append(file)
    return [(files, key[0], key[1]) for key, files in sorted(groups.items())]


def _track_rows(table: Path, key: str, count: int) -> list[list[int]]:
    """Return first and last file, from 1 to `count`, identity and camera of each track."""
    rows = np.atleast_2d(read_matlab(table, (key,))[key])
    numbers = rows.shape[1:] == (4,) and rows.dtype.kind in "iuf"
    if not numbers or not ((abs(rows) < 2**31) & (rows == np.round(rows))).all():
        rule = "have rows of integers first, last, identity, camera"
        raise invalid_file(f"{key} of {table}", rule, f"shape {rows.shape}", "Download it again.")
    matlab_indices(rows[:, :2], count, f"the first two columns of {key} in {table}")
    return rows.astype(int).tolist()


def read_duke_video(root: Path) -> ReidDataset:
    """Read DukeMTMC-VideoReID: `part/identity/tracklet/0001C6F0099….jpg`."""
    root = level(root, "DukeMTMC-VideoReID")

    def part(name: str) -> list[Track]:
        folders = [track for person in subfolders(root / name) for track in subfolders(person)]
        tracks = []
        for folder, files in zip(folders, image_files(*folders), strict=True):
            if files:
                match = named(DUKE_NAME, files[0], "0001C6F0099X30552.jpg")
                tracks.append((files, int(folder.parent.name), int(match[2])))
        return tracks

    parts = (of_tracks(part(name), root / name) for name in PARTS)
    return ReidDataset("dukemtmc-videoreid", *parts)
