"""Frames of a video, and the persons that are cut out of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_reid.data.images import PersonImages
from keras_reid.data.mot import NOBODY, read_mot
from keras_reid.data.pillow import opened
from keras_reid.data.readers.layouts import SUFFIXES, entries, of_tracks
from keras_reid.errors import InputError
from keras_reid.files import new_folder


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
            yield np.asarray(opened(file))
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
            f"pip install '.[tracking]' in the checkout, or {instead}"
        ) from error
    return cv2


def cut_tracklets(
    video: str | os.PathLike[str],
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    camera: int = 1,
) -> PersonImages:
    """The persons of a MOT `gt.txt`, cut out of its video, as tracklets in the new folder `out`.

    They are named as those of MARS, `0001C1T0001F0001.jpg`. A `det.txt`, in which all identities
    are −1, has no tracklets: track it first, see `keras_reid.tracking`.

    Raises:
        InputError: `out` exists, a broken table, or one without identities.
    """
    boxes = read_mot(table)
    boxes = boxes[(boxes.identity != NOBODY) & (boxes.confidence > 0)]
    if not len(boxes):
        raise InputError(
            f"tracklets have identities: all in {table} are −1 or marked as ignored; track the "
            "detections first (track.py)"
        )
    target = Path(out).expanduser().absolute()
    if target.exists():
        raise InputError(f"tracklets are written to a new folder, but {target} exists")
    frames: dict[int, list[Path]] = {}
    with new_folder(target) as staged:
        for number, image in enumerate(video_frames(video), start=1):
            for i in np.flatnonzero(boxes.frame == number):
                crop = cut(image, boxes.box[i])
                if crop is None:
                    continue
                identity = int(boxes.identity[i])
                name = f"{identity:04d}C{camera}T0001F{number:04d}.jpg"
                Image.fromarray(crop).save(staged / name, quality=95)
                frames.setdefault(identity, []).append(target / name)
    return of_tracks([(files, one, camera) for one, files in sorted(frames.items())], target)


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The part of an image (h, w, 3) inside the box (x, y, w, h); None if that is nothing."""
    height, width = image.shape[:2]
    left, top = (max(0, round(float(v))) for v in box[:2])
    right = min(width, round(float(box[0] + box[2])))
    bottom = min(height, round(float(box[1] + box[3])))
    return image[top:bottom, left:right] if right > left and bottom > top else None
