"""`python track.py --video=VIDEO --detections=det.txt --run=RUN --out=tracks.txt`: who went where.

Detections become tracklets by appearance and motion. With --ground_truth they are scored, with
--annotated drawn, and with --gallery persons are followed from camera to camera: run it for each
camera with the same gallery.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from keras_reid import data, gallery, tracking, visualize
from keras_reid.cli.shared import (
    FLAGS,
    check_one_model,
    command,
    fingerprint,
    pixel_embedder,
    progress,
    refuse_existing,
    say,
)
from keras_reid.data.mot import Boxes, read_mot, write_mot
from keras_reid.data.videos import opencv
from keras_reid.errors import InputError
from keras_reid.files import new_file, new_folder

flags.DEFINE_string("saved_model", None, "An exported model instead of --run.")
flags.DEFINE_string("video", None, "A video file, or a folder of frames in the order of names.")
flags.DEFINE_string(
    "detections", None, "MOT text file of boxes; default: OpenCV's detector finds them."
)
flags.DEFINE_float("min_confidence", 0.0, "Detections below are left out.")
flags.DEFINE_bool("appearance", True, "Whether appearance counts; --noappearance needs no model.")
flags.DEFINE_float(
    "max_cosine_distance", 0.3, "1 - cos up to which two images may show one person."
)
flags.DEFINE_float("motion_weight", 0.5, "Of motion against appearance, in [0, 1].", 0, 1)
flags.DEFINE_float("min_iou", 0.3, "Of a predicted and a detected box.")
flags.DEFINE_integer("n_init", 3, "Detections in a row that begin a track.")
flags.DEFINE_integer("max_age", 30, "Frames that a track survives unseen.")
flags.DEFINE_string("out", None, "New MOT text file of the tracks.")
flags.DEFINE_string("annotated", None, "New video (.avi, .mp4) or new folder of frames.")
flags.DEFINE_string("ground_truth", None, "MOT text file to score against: MOTA, IDF1, HOTA.")
flags.DEFINE_string("scores", None, "Write the scores to this new JSON file, too.")
flags.DEFINE_string("gallery", None, "Follow persons across cameras: see search.py.")
flags.DEFINE_string("camera", "1", "Name of the camera in the gallery.")
flags.DEFINE_float("threshold", None, "Distance of a known person; default: the gallery's.")
flags.DEFINE_float(
    "frame_rate",
    None,
    "Of the video, for times and the annotated video; default: its own, of a folder 25.",
    0.01,
)
flags.DEFINE_float("start", 0.0, "Seconds at the first frame.")

VIDEOS = {".avi": "MJPG", ".mp4": "mp4v"}
FOLDER_RATE = 25.0  # frames a second, where nothing says it


def main(argv: list[str]) -> None:
    """Reads the flags, detects, embeds, tracks, writes, scores."""
    del argv
    if FLAGS.video is None or not (FLAGS.out or FLAGS.gallery or FLAGS.ground_truth):
        raise InputError(
            "tracking reads a video and says what it found: give --video, and --out, "
            "--ground_truth or --gallery"
        )
    refuse_existing("out", "annotated", "scores")
    needs_model = FLAGS.appearance or FLAGS.gallery is not None
    if needs_model:
        check_one_model()
    boxes = _detections()
    truth = read_mot(FLAGS.ground_truth) if FLAGS.ground_truth else None
    embeddings = _embedded(boxes) if needs_model else None
    options = ("max_cosine_distance", "motion_weight", "min_iou", "n_init", "max_age")
    tracks = tracking.track(
        boxes,
        embeddings if FLAGS.appearance else None,
        **{name: FLAGS[name].value for name in options},
    )
    count = len(np.unique(tracks.identity))
    say(f"{count:,} tracks of {len(tracks):,} of {len(boxes):,} detections")
    names: dict[int, str] = {}
    if FLAGS.gallery and embeddings is not None:
        names = _identified(tracks, embeddings[_places(boxes, tracks)])
    if FLAGS.out:
        write_mot(tracks, FLAGS.out)
        say(f"tracks in {FLAGS.out}")
    if FLAGS.annotated:
        _annotate(tracks, names)
        say(f"drawn in {FLAGS.annotated}")
    if truth is not None:
        scores = tracking.tracking_scores(truth[truth.confidence > 0], tracks)
        say(str(scores))
        if FLAGS.scores:
            with new_file(FLAGS.scores) as file:
                file.write_text(json.dumps(vars(scores), indent=2) + "\n")


def _detections() -> Boxes:
    if FLAGS.detections:
        boxes = read_mot(FLAGS.detections)
    else:
        boxes = tracking.detect_persons(data.video_frames(FLAGS.video), progress=_tell)
    boxes = boxes[boxes.confidence >= FLAGS.min_confidence]
    if not len(boxes):
        raise InputError(
            f"tracks are made of detections: {FLAGS.detections or 'the detector'} has none of a "
            f"confidence of {FLAGS.min_confidence:g}; lower --min_confidence"
        )
    return boxes


def _tell(done: int) -> None:
    if done % 100 == 0:
        say(f"detecting: {done:,} frames")


def _embedded(boxes: Boxes) -> np.ndarray:
    embed, size = pixel_embedder()
    frames = data.video_frames(FLAGS.video)
    tell = progress("looking at persons")
    return tracking.embed_boxes(frames, boxes, embed, size, FLAGS.embed_batch_size, tell)


def _places(boxes: Boxes, tracks: Boxes) -> np.ndarray:
    """The row of each box of the tracks among all detections."""
    place = {
        (f, *b): i for i, (f, b) in enumerate(zip(boxes.frame, boxes.box.tolist(), strict=True))
    }
    pairs = zip(tracks.frame, tracks.box.tolist(), strict=True)
    return np.array([place[(f, *b)] for f, b in pairs], int)


def _identified(tracks: Boxes, embeddings: np.ndarray) -> dict[int, str]:
    with gallery.open(FLAGS.gallery) as people:
        found = tracking.identify_tracks(
            tracks,
            embeddings,
            people,
            FLAGS.camera,
            str(Path(FLAGS.video).expanduser().resolve()),
            model_fingerprint=fingerprint(),
            threshold=FLAGS.threshold,
            frame_rate=_frame_rate(),
            start=FLAGS.start,
        )
    for one in found:
        how = "seen first" if one.distance is None else f"at distance {one.distance:.4f}"
        say(f"track {one.track}: {one.identity}, {how}")
    return {one.track: one.identity for one in found}


def _frame_rate() -> float:
    return FLAGS.frame_rate or data.frame_rate(FLAGS.video) or FOLDER_RATE


def _annotate(tracks: Boxes, names: dict[int, str]) -> None:
    pictures = _pictures(tracks, names)
    suffix = Path(FLAGS.annotated).suffix.lower()
    if suffix in VIDEOS:
        with new_file(FLAGS.annotated) as file:
            _write_video(file, VIDEOS[suffix], pictures)
        return
    with new_folder(FLAGS.annotated) as folder:
        for number, picture in enumerate(pictures, start=1):
            picture.save(folder / f"{number:06d}.jpg", quality=90)


def _write_video(file: Path, codec: str, pictures: Iterator[Image.Image]) -> None:
    cv2 = opencv("writing a video", "name a folder of frames")
    first = next(pictures)
    code = cv2.VideoWriter_fourcc(*codec)
    writer = cv2.VideoWriter(str(file), code, _frame_rate(), first.size)
    if not writer.isOpened():
        raise InputError(f"OpenCV cannot write {FLAGS.annotated}: name an .avi, or a folder")
    try:
        for picture in (first, *pictures):
            writer.write(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
    finally:
        writer.release()


def _pictures(tracks: Boxes, names: dict[int, str], trail: int = 25) -> Iterator[Image.Image]:
    foot = tracks.box[:, :2] + tracks.box[:, 2:] * (0.5, 1.0)
    for number, frame in enumerate(data.video_frames(FLAGS.video), start=1):
        here = np.flatnonzero(tracks.frame == number)
        people = tracks.identity[here].tolist()
        recent = (tracks.frame <= number) & (tracks.frame > number - trail)
        trails = [foot[recent & (tracks.identity == person)] for person in people]
        labels: list[Any] = [names.get(person, person) for person in people]
        yield visualize.draw_tracks(frame, tracks.box[here], labels, trails)


run = command(
    main,
    "run",
    "saved_model",
    "video",
    "detections",
    "out",
    "annotated",
    "ground_truth",
    "gallery",
    "camera",
    "frame_rate",
)
