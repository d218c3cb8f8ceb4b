"""Videos of tracks: boxes, names and trails of the persons in each frame."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from keras_reid import checks
from keras_reid.data.mot import Boxes
from keras_reid.data.video import Video
from keras_reid.errors import Shown, invalid
from keras_reid.io import new_file, new_folder
from keras_reid.visualize.track_pictures import draw_tracks

CODECS = {".avi": "MJPG", ".mp4": "mp4v"}
FRAMES = ("[0-9]" * 6 + ".jpg",)  # names in a folder of frames
TRAIL = 25  # frames


def check_video(path: str, size: tuple[int, int]) -> None:
    """Raise for the path of a video that cannot be written in this size (w, h)."""
    if Path(path).suffix.lower() in CODECS:
        with TemporaryDirectory() as folder, _writer(Path(folder, Path(path).name), 25.0, size):
            pass


def write_tracks(
    path: str,
    video: Video,
    tracks: Boxes,
    names: Mapping[int, str],
    rate: float,
    overwrite: bool = False,
) -> None:
    """Write a video, or a folder of frames, with the tracks.

    Args:
        path: the file, `.avi` or `.mp4`, or else the folder.
        video: the frames.
        tracks: boxes with the numbers of tracks.
        names: names of tracks by number; other tracks are drawn with their number.
        rate: frames per second of the new video.
        overwrite: replace an existing video, or a folder that this function wrote.

    Raises:
        InputError: a video that OpenCV cannot write, or with frames of several sizes.
    """
    pictures = enumerate(_pictures(video, tracks, names), start=1)
    if Path(path).suffix.lower() not in CODECS:
        with new_folder(path, FRAMES if overwrite else ()) as folder:
            for number, picture in pictures:
                picture.save(folder / f"{number:06d}.jpg", quality=90)
        return
    size = video.size
    with new_file(path, overwrite) as file, _writer(file, rate, size) as writer:
        for number, picture in pictures:
            if picture.size != size:  # OpenCV would leave the frame out
                sizes = Shown(f"frame {number} of {picture.size} after {size}")
                raise invalid("annotated", "a folder if the frames differ in size", sizes)
            writer.write(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))


@contextmanager
def _writer(file: Path, rate: float, size: tuple[int, int]) -> Iterator[Any]:
    """Yield OpenCV's writer of a video with the codec of its suffix."""
    cv2 = checks.installed("cv2", "tracking")
    codec = cv2.VideoWriter_fourcc(*CODECS[file.suffix.lower()])
    writer = cv2.VideoWriter(str(file), codec, rate, size)
    if not writer.isOpened():
        received = Shown(f"*{file.suffix} of {size[0]} x {size[1]} pixels")
        fix = "Choose an .avi file, or a folder."
        raise invalid("annotated", "a video that OpenCV can write", received, fix)
    try:
        yield writer
    finally:
        writer.release()


def _pictures(video: Video, tracks: Boxes, names: Mapping[int, str]) -> Iterator[Image.Image]:
    foot = tracks.box[:, :2] + tracks.box[:, 2:] * (0.5, 1.0)
    for number, frame in enumerate(video, start=1):
        here = np.flatnonzero(tracks.frame == number)
        people = tracks.identity[here].tolist()
        recent = (tracks.frame <= number) & (tracks.frame > number - TRAIL)
        trails = [foot[recent & (tracks.identity == person)] for person in people]
        labels: list[Any] = [names.get(person, person) for person in people]
        yield draw_tracks(frame, tracks.box[here], labels, trails)
