"""Tracklets of many cameras: MARS, and DukeMTMC-VideoReID."""

import os
import re
from itertools import chain
from pathlib import Path

import numpy as np

from keras_reid.data.grouping import first_tracklets
from keras_reid.data.images import PersonImages, ReidDataset
from keras_reid.data.readers.layouts import (
    DISTRACTOR,
    JUNK,
    PARTS,
    Track,
    image_files,
    level,
    named,
    of_tracks,
    subfolders,
    with_distractors,
)
from keras_reid.errors import InputError
from keras_reid.io import matlab_indices, read_matlab, read_text

MARS_NAME = re.compile(r"(?:00)?(-?\d+)C(\d+)T(\d+)F(\d+)")  # junk is 00-1
DUKE_NAME = re.compile(r"(\d+)_?[Cc](\d+)_?[Ff](\d+)")


def read_mars(root: Path) -> ReidDataset:
    """MARS: tracks of `info/tracks_*_info.mat` if they are there, else by their names.

    Junk (00-1) is left out; the distractors (0000 in the gallery) stay. Queries are among the
    gallery.
    """
    root = level(root, "MARS", "mars")
    info = level(root, "info")
    train = _mars_part(root / "bbox_train", info / "train_name.txt", info, "track_train_info")
    tracks = _mars_part(root / "bbox_test", info / "test_name.txt", info, "track_test_info")
    queries = info / "query_IDX.mat"
    query = None
    if queries.exists():
        rows = read_matlab(queries, ("query_IDX",))["query_IDX"]
        chosen = matlab_indices(rows, len(tracks), f"query_IDX of {queries}")
        query = _images([tracks[i] for i in chosen], root)
    images = _images(train, root)
    gallery = with_distractors(_images(tracks, root), DISTRACTOR, images, query)
    return ReidDataset("mars", images, query or first_tracklets(gallery), gallery)


def _images(tracks: list[Track], source: Path) -> PersonImages:
    return of_tracks([track for track in tracks if track[1] != JUNK], source)


def _mars_part(folder: Path, names: Path, info: Path, key: str) -> list[Track]:
    table = info / f"{key.replace('track_', 'tracks_')}.mat"
    if names.exists() and table.exists():
        listed = read_text(names).split()
        files = [folder / name[:4] / name for name in listed]
        rows = np.atleast_2d(read_matlab(table, (key,))[key])
        numbers = rows.shape[1:] == (4,) and rows.dtype.kind in "iuf"
        if not numbers or not ((abs(rows) < 2**31) & (rows == np.round(rows))).all():
            raise InputError(
                f"{key} of {table} has whole numbers (first, last, identity, camera) for each "
                f"track, but other values {rows.shape} stand there: download it again"
            )
        matlab_indices(rows[:, :2], len(files), f"the first two columns of {key} in {table}")
        found = []
        for first, last, identity, camera in rows.astype(int).tolist():
            found.append((files[first - 1 : last], identity, camera))
        for part, _, _ in found:
            if part and not os.path.isfile(part[0]):
                raise InputError(f"{names} names {part[0]}, which does not exist: restore it")
        return found
    groups: dict[tuple[int, int, int], list[Path]] = {}
    for file in chain.from_iterable(image_files(*subfolders(folder))):
        match = named(MARS_NAME, file, "0001C1T0001F001.jpg")
        identity, camera, track = (int(match[i]) for i in (1, 2, 3))
        groups.setdefault((identity, camera, track), []).append(file)
    return [(files, key[0], key[1]) for key, files in sorted(groups.items())]


def read_duke_video(root: Path) -> ReidDataset:
    """DukeMTMC-VideoReID: `part/identity/tracklet/0001C6F0099….jpg`."""
    root = level(root, "DukeMTMC-VideoReID")

    def part(name: str) -> list[Track]:
        found = []
        tracks = [track for person in subfolders(root / name) for track in subfolders(person)]
        for track, files in zip(tracks, image_files(*tracks), strict=True):
            if files:
                match = named(DUKE_NAME, files[0], "0001C6F0099X30552.jpg")
                found.append((files, int(track.parent.name), int(match[2])))
        return found

    parts = (of_tracks(part(name), root / name) for name in PARTS)
    return ReidDataset("dukemtmc-videoreid", *parts)
