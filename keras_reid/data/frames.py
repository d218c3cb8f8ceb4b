"""Persons cut out of the frames of a video."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from keras_reid.data.images import PersonImages
from keras_reid.data.mot import NOBODY, read_mot
from keras_reid.data.readers.layouts import of_tracks
from keras_reid.data.video import video_frames
from keras_reid.errors import InputError
from keras_reid.io import new_folder
from keras_reid.names import expanded


def cut_tracklets(
    video: str | os.PathLike[str],
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    camera: int = 1,
) -> PersonImages:
    """The persons of a MOT `gt.txt`, cut out of its video, as tracklets in the new folder `out`.

    They are named as those of MARS, `0001C1T0001F0001.jpg`. A `det.txt`, in which all identities
    are −1, has no tracklets: track it first, see `keras_reid.tracking`. Boxes of other classes than
    pedestrians are left out.

    Raises:
        InputError: `out` exists, a broken table, one without identities, an identity twice in
            a frame, or a box beyond the last frame.
    """
    boxes = read_mot(table)
    boxes = boxes[(boxes.identity != NOBODY) & (boxes.confidence != 0)]
    if not len(boxes):
        raise InputError(
            f"tracklets have identities: all in {table} are −1 or marked as ignored; track the "
            "detections first (track.py)"
        )
    boxes.check_identities()
    digits = max(4, len(str(boxes.frame.max())))
    target = expanded(out).absolute()
    if target.exists():
        raise InputError(f"tracklets are written to a new folder, but {target} exists")
    frames: dict[int, list[Path]] = {}
    number = 0
    with new_folder(target) as staged:
        for number, image in enumerate(video_frames(video), start=1):
            for i in np.flatnonzero(boxes.frame == number):
                crop = cut(image, boxes.box[i])
                if crop is None:
                    continue
                identity = int(boxes.identity[i])
                name = f"{identity:04d}C{camera}T0001F{number:0{digits}d}.jpg"
                Image.fromarray(crop).save(staged / name, quality=95)
                frames.setdefault(identity, []).append(target / name)
        boxes.check_frames(number)
    return of_tracks([(files, one, camera) for one, files in sorted(frames.items())], target)


def cut(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """The part of an image (h, w, 3) inside the box (x, y, w, h); None if that is nothing."""
    height, width = image.shape[:2]
    left, top = (max(0, round(float(v))) for v in box[:2])
    right = min(width, round(float(box[0] + box[2])))
    bottom = min(height, round(float(box[1] + box[3])))
    return image[top:bottom, left:right] if right > left and bottom > top else None
