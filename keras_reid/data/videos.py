"""Tracklets as their authors ship them, and as they are cut out of a video."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_reid import checks
from keras_reid.data.grouping import TrackletDataset, Tracklets, tracklet_dataset
from keras_reid.data.layouts import SUFFIXES, entries, image_files, level
from keras_reid.data.mot import Boxes, read_mot
from keras_reid.data.readers import JUNK, PRID2011_SHARED_PERSONS, READERS, load, matlab
from keras_reid.errors import InputError
from keras_reid.files import new_folder

Found = tuple[list[Path], int, int]  # files, identity, camera
MARS_NAME = re.compile(r"(?:00)?(-?\d+)C(\d+)T(\d+)F(\d+)")  # junk is 00-1
DUKE_NAME = re.compile(r"(\d+)_?[Cc](\d+)_?[Ff](\d+)")


def load_tracklets(name: str, root: str | os.PathLike[str], **options: Any) -> TrackletDataset:
    """The tracklets of the data set of that name, read from the folder `root`.

    Args:
        name: one of
            `mars`: bbox_train, bbox_test and info (Zheng et al., ECCV 2016);
            `dukemtmc-videoreid`: train, query, gallery with a folder for each identity and tracklet
            (Wu et al., CVPR 2018);
            `ilids-vid`: sequences/cam1/person001 and cam2 (Wang et al., ECCV 2014);
            `prid2011-video`: multi_shot/cam_a/person_0001 and cam_b (Hirzer et al., SCIA 2011);
            any name of `keras_reid.data.load`, whose images are grouped, see `tracklet_dataset`.
        root: the data set's folder, with or without the level that its archive adds.
        options: of `ilids-vid` and `prid2011-video` `seed=0`, which chooses the half of the persons
            to train on, and `least=1` (21 for `prid2011-video`), the frames that a person has in
            both cameras; else those of `load`.

    Raises:
        InputError: an unknown name; a folder or file that is missing, empty or malformed, by name.
    """
    if name in TRACKLET_READERS:
        return TRACKLET_READERS[name](Path(root).expanduser(), **options)
    return tracklet_dataset(load(name, root, **options))


def read_mars(root: Path) -> TrackletDataset:
    """MARS: tracks of `info/tracks_*_info.mat` if they are there, else by their names.

    Junk (00-1) is left out; the distractors (0000) stay. Queries are among the gallery.
    """
    root = level(root, "MARS", "mars")
    info = level(root, "info")
    train = _mars_part(root / "bbox_train", info / "train_name.txt", info, "track_train_info")
    gallery = _mars_part(root / "bbox_test", info / "test_name.txt", info, "track_test_info")
    queries = info / "query_IDX.mat"
    if queries.exists():
        rows = matlab(queries, ("query_IDX",))["query_IDX"].ravel().astype(int) - 1
        chosen = [gallery[i] for i in rows if i < len(gallery)]
    else:
        first = {(g[1], g[2]): g for g in reversed(gallery)}
        chosen = [g for key, g in sorted(first.items()) if key[0] > 0]
    named = ("mars", train, chosen, gallery)
    return _dataset(*named, root)


def _mars_part(folder: Path, names: Path, info: Path, key: str) -> list[Found]:
    table = info / f"{key.replace('track_', 'tracks_')}.mat"
    if names.exists() and table.exists():
        listed = names.read_text().split()
        files = [folder / name[:4] / name for name in listed]
        found = []
        for first, last, identity, camera in matlab(table, (key,))[key].astype(int).tolist():
            found.append((files[first - 1 : last], identity, camera))
        for part, _, _ in found:
            if part and not part[0].is_file():
                raise InputError(f"{names} names {part[0]}, which does not exist: restore it")
        return found
    groups: dict[tuple[int, int, int], list[Path]] = {}
    for person in entries(folder):
        for file in image_files(person):
            match = _match(MARS_NAME, file, "0001C1T0001F001.jpg")
            identity, camera, track = (int(match[i]) for i in (1, 2, 3))
            groups.setdefault((identity, camera, track), []).append(file)
    return [(files, key[0], key[1]) for key, files in sorted(groups.items())]


def read_duke_video(root: Path) -> TrackletDataset:
    """DukeMTMC-VideoReID: `part/identity/tracklet/0001C6F0099….jpg`."""
    root = level(root, "DukeMTMC-VideoReID")

    def part(name: str) -> list[Found]:
        found = []
        for person in entries(root / name):
            for track in entries(person):
                files = image_files(track)
                if files:
                    match = _match(DUKE_NAME, files[0], "0001C6F0099X30552.jpg")
                    found.append((files, int(person.name), int(match[2])))
        return found

    return _dataset("dukemtmc-videoreid", part("train"), part("query"), part("gallery"), root)


def read_ilids_vid(root: Path, seed: int = 0, least: int = 1) -> TrackletDataset:
    """iLIDS-VID: 300 persons, half of them to train on; cam1 is the query, cam2 the gallery."""
    root = level(level(root, "i-LIDS-VID", "iLIDS-VID"), "sequences")
    return _two_cameras("ilids-vid", root, ("cam1", "cam2"), r"person(\d+)", seed, least, None)


def read_prid2011_video(root: Path, seed: int = 0, least: int = 21) -> TrackletDataset:
    """PRID2011, multi shot: persons 1 to 200 with enough frames in both cameras (178 by default).

    Half of them are to train on; cam_a is the query and cam_b the gallery.
    """
    root = level(level(root, "prid_2011"), "multi_shot")
    shared = PRID2011_SHARED_PERSONS
    return _two_cameras(
        "prid2011-video", root, ("cam_a", "cam_b"), r"person_(\d+)", seed, least, shared
    )


def _two_cameras(
    name: str,
    root: Path,
    cameras: tuple[str, str],
    pattern: str,
    seed: int,
    least: int,
    shared: int | None,
) -> TrackletDataset:
    sides: list[dict[int, Found]] = []
    for camera, folder in enumerate(cameras, start=1):
        side = {}
        for person in entries(root / folder):
            match = _match(re.compile(pattern), person, "person001")
            files = image_files(person)
            if len(files) >= least:
                side[int(match[1])] = (files, int(match[1]), camera)
        sides.append(side)
    both = sorted(set(sides[0]) & set(sides[1]))
    both = [person for person in both if shared is None or person <= shared]
    if len(both) < 2:
        raise InputError(
            f"{name} needs two or more persons with {least} frames in both cameras: {root} has "
            f"{len(both)}; restore the missing images"
        )
    order = np.random.default_rng(seed).permutation(both).tolist()
    train, test = sorted(order[: len(both) // 2]), sorted(order[len(both) // 2 :])
    return _dataset(
        name,
        [side[person] for person in train for side in sides],
        [sides[0][person] for person in test],
        [sides[1][person] for person in test],
        root,
    )


def _dataset(
    name: str, train: list[Found], query: list[Found], gallery: list[Found], root: Path
) -> TrackletDataset:
    parts = []
    for found in (train, query, gallery):
        kept = [(files, i, camera) for files, i, camera in found if i != JUNK and files]
        if not kept:
            raise InputError(f"{name} has tracklets to train on and to test: {root} lacks some")
        files, identity, camera = zip(*kept, strict=True)
        paths = [np.array([str(file) for file in part]) for part in files]
        parts.append(Tracklets(paths, np.array(identity), np.array(camera)))
    return TrackletDataset(name, *parts)


def _match(pattern: re.Pattern[str], file: Path, example: str) -> re.Match[str]:
    match = pattern.match(file.name)
    if not match:
        raise InputError(
            f"what stands here is named such as {example}, but {file} is not: rename it or move it "
            "away"
        )
    return match


TRACKLET_READERS: dict[str, Callable[..., TrackletDataset]] = {
    "mars": read_mars,
    "dukemtmc-videoreid": read_duke_video,
    "ilids-vid": read_ilids_vid,
    "prid2011-video": read_prid2011_video,
}


DATASETS = (*READERS, *TRACKLET_READERS)  # all names, of images and of tracklets


def check_dataset(name: str) -> None:
    """Refuses a name that neither `load` nor `load_tracklets` knows."""
    checks.one_of(DATASETS, dataset=name)


def video_frames(video: str | os.PathLike[str]) -> Iterator[np.ndarray]:
    """The frames of a video file, or of a folder of images by name, as uint8 RGB (h, w, 3).

    Raises:
        InputError: neither, a video without OpenCV (extra `tracking`), or one that has no frames.
    """
    path = Path(video).expanduser()
    if path.is_dir():
        files = [f for f in entries(path) if f.suffix.lower() in SUFFIXES]
        if not files:
            raise InputError(f"a folder of frames holds images: {path} has none")
        for file in files:
            with Image.open(file) as image:
                yield np.asarray(image.convert("RGB"))
        return
    if not path.is_file():
        raise InputError(f"a video is a file, or a folder of images: {path} is neither")
    cv2 = opencv("reading a video", "give a folder of frames")
    capture = cv2.VideoCapture(str(path))
    count = 0
    try:
        while True:
            good, frame = capture.read()
            if not good:
                break
            count += 1
            yield frame[:, :, ::-1]
    finally:
        capture.release()
    if not count:
        raise InputError(f"{path} is no video that OpenCV reads: name another, or extract frames")


def frame_rate(video: str | os.PathLike[str]) -> float | None:
    """Frames a second, as a video file says; None of a folder, or where the file says nothing.

    Raises:
        InputError: a video without OpenCV (extra `tracking`).
    """
    path = Path(video).expanduser()
    if path.is_dir():
        return None
    cv2 = opencv("reading a video", "give a folder of frames")
    capture = cv2.VideoCapture(str(path))
    try:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    finally:
        capture.release()
    return rate if 0 < rate < float("inf") else None


def opencv(what: str, instead: str) -> Any:
    """OpenCV, or the sentence that says how to get it."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            f"{what} needs OpenCV, which is not installed ({error}): "
            f"pip install 'keras_reid[tracking]', or {instead}"
        ) from error
    return cv2


def cut_tracklets(
    video: str | os.PathLike[str],
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    camera: int = 1,
) -> Tracklets:
    """The persons of a MOT `gt.txt`, cut out of its video, as tracklets in the new folder `out`.

    They are named as those of MARS, `0001C1T0001F0001.jpg`. A `det.txt`, in which all identities
    are −1, has no tracklets: track it first, see `keras_reid.tracking`.

    Raises:
        InputError: `out` exists, a broken table, or one without identities.
    """
    boxes = read_mot(table)
    boxes = boxes[(boxes.identity > 0) & (boxes.confidence > 0)]
    if not len(boxes):
        raise InputError(
            f"tracklets have identities: all in {table} are −1 or marked as ignored; track the "
            "detections first (track.py)"
        )
    target = Path(out).expanduser().absolute()
    if target.exists():
        raise InputError(f"tracklets are written to a new folder, but {target} exists")
    frames: dict[int, list[str]] = {}
    with new_folder(target) as staged:
        for number, image in enumerate(video_frames(video), start=1):
            for i in np.flatnonzero(boxes.frame == number):
                crop = cut(image, boxes.box[i])
                if crop is None:
                    continue
                identity = int(boxes.identity[i])
                name = f"{identity:04d}C{camera}T0001F{number:04d}.jpg"
                Image.fromarray(crop).save(staged / name, quality=95)
                frames.setdefault(identity, []).append(str(target / name))
    identities = np.array(sorted(frames))
    return Tracklets(
        [np.array(frames[i]) for i in identities], identities, np.full(len(identities), camera)
    )


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The part of an image (h, w, 3) inside the box (x, y, w, h); None if that is nothing."""
    height, width = image.shape[:2]
    left, top = (max(0, round(float(v))) for v in box[:2])
    right = min(width, round(float(box[0] + box[2])))
    bottom = min(height, round(float(box[1] + box[3])))
    return image[top:bottom, left:right] if right > left and bottom > top else None


__all__ = [
    "DATASETS",
    "Boxes",
    "check_dataset",
    "cut",
    "cut_tracklets",
    "frame_rate",
    "load_tracklets",
    "video_frames",
]
