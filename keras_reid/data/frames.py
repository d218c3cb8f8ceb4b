"""Crops of persons from the frames of a video."""

from pathlib import Path

import numpy as np
from PIL import Image

from keras_reid.data.images import PersonImages
from keras_reid.data.mot import UNLABELED, read_mot
from keras_reid.data.readers.layouts import of_tracks
from keras_reid.data.video import Video
from keras_reid.errors import invalid_file
from keras_reid.io import new_folder
from keras_reid.names import StrPath, expanded


def cut_tracklets(
    video: StrPath,
    table: StrPath,
    out: StrPath,
    camera: int = 1,
) -> PersonImages:
    """Crop the persons of a MOT `gt.txt` from its video, as tracklets in the new folder `out`.

    Files are named as in MARS, `0001C1T0001F0001.jpg`. In a `det.txt`, all identities are −1; it
    must be tracked first, see `keras_reid.tracking`. Boxes of other classes than pedestrians are
    left out.

    Args:
        video: source of a `keras_reid.data.Video`.
        table: boxes with identities, see `keras_reid.data.mot.read_mot`.
        out: new folder for the crops.
        camera: number of the camera in the names.

    Raises:
        InputError: `out` is not empty; the table is malformed or has no identities; an identity
            twice in a frame; a box after the last frame.
    """
    boxes = read_mot(table)
    boxes = boxes[(boxes.identity != UNLABELED) & (boxes.confidence != 0)]
    if not len(boxes):
        fix = "Track the detections first (track.py)."
        raise invalid_file(table, "have boxes with identities", "none", fix)
    boxes.check_identities()
    digits = max(4, len(str(boxes.frame.max())))
    target = expanded(out).absolute()
    frames: dict[int, list[Path]] = {}
    number = 0
    with new_folder(target) as staged:
        for number, image in enumerate(Video(video), start=1):
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
    """Return the part of an image (h, w, 3) inside the box (x, y, w, h); None if it is empty."""
    height, width = image.shape[:2]
    left, top = (max(0, round(float(v))) for v in box[:2])
    right = min(width, round(float(box[0] + box[2])))
    bottom = min(height, round(float(box[1] + box[3])))
    return image[top:bottom, left:right] if right > left and bottom > top else None
