"""`keras-reid track --video=VIDEO --detections=det.txt --out=tracks.txt`: tracks of persons.

The embedder is --model, by default the pretrained model. Detections become tracklets by appearance
and motion. --ground_truth scores them, --annotated draws them, and --gallery identifies persons
across cameras: run the command for each camera with the same gallery.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from keras_reid import data, gallery, tracking, visualize
from keras_reid.cli.common import GalleryOptions
from keras_reid.cli.detector import DetectorOptions
from keras_reid.cli.options import Command, option, reject
from keras_reid.cli.terminal import check_outputs, check_picture, progress, say, write_json
from keras_reid.data.mot import Boxes, read_mot, write_mot
from keras_reid.errors import Shown, counted, invalid
from keras_reid.io import new_file

# Arguments of `tracking.track`.
SETTINGS = ("max_cosine_distance", "motion_weight", "min_iou", "n_init", "max_age")
FOLDER_RATE = 25.0  # frames per second of a folder without --frame_rate


@dataclass(frozen=True, kw_only=True)
class TrackOptions(GalleryOptions, DetectorOptions):
    """Options of `track`: the video, the tracker, and the files to write."""

    unused: ClassVar[str] = "dataset data_dir protocol keypoints_cache"

    video: str | None = option(
        "Video file, folder of frames in natural order of names, or address such as https://… or "
        "rtsp://….",
        topic="data",
    )
    detections: str | None = option(
        "MOT text file of boxes. Default: boxes of --detector.", topic="data"
    )
    min_confidence: float | None = option("Minimum confidence of a detection. Default: none.")
    appearance: bool = option("Matching by embeddings; --noappearance needs no model.", True)
    max_cosine_distance: float = option("Maximum 1 - cos of two embeddings of one person.", 0.3)
    motion_weight: float = option(
        "Weight of motion against appearance, from 0 to 1.", 0.5, least=0, most=1
    )
    min_iou: float = option("Minimum IoU of a predicted and a detected box.", 0.3)
    n_init: int = option("Number of consecutive detections that confirm a track.", 3)
    max_age: int = option(
        "Number of frames in a row that a confirmed track survives without a detection.", 30
    )
    out: str | None = option("New MOT text file of the tracks.", topic="output")
    annotated: str | None = option(
        "New video (.avi, .mp4) or new folder of frames, with boxes and names.", topic="output"
    )
    timeline: str | None = option(
        "New picture with a bar for the duration of each track.", topic="output"
    )
    ground_truth: str | None = option(
        "MOT text file of true tracks, to print scores: MOTA, IDF1 and HOTA.", topic="data"
    )
    scores: str | None = option("New JSON file of the scores.", topic="output")
    camera: str = option("Name of the camera in the gallery.", "1", topic="gallery")
    frame_rate: float | None = option(
        "Frames per second. Default: the times of the video file, or its mean rate if it has no "
        "times; 25 for a folder.",
        least=0.01,
    )
    start: float = option(
        "Time of the first frame in seconds since 1970, added to the times of all frames.", 0.0
    )
    benchmark: str | None = option(
        "Benchmark that defines the classes of --ground_truth. Default: MOT20 if a folder of its "
        "path begins with MOT20, else MOT17.",
        choices=("MOT15", "MOT16", "MOT17", "MOT20"),
        topic="data",
    )


@dataclass(frozen=True, eq=False)
class TrackResult(Boxes):
    """Boxes of the tracks, with the printed results.

    Attributes:
        names: identity in the gallery of each track; empty if there is no gallery.
        scores: scores against the ground truth; None if `ground_truth` is not set.
    """

    names: dict[int, str] = field(default_factory=dict)
    scores: "tracking.TrackingScores | None" = None


def track(options: TrackOptions) -> TrackResult:
    """Detect, embed, track, score and write.

    The video, its size and the outputs are checked first. All frames are read before the tracks are
    written.
    """
    has_output = options.out or options.gallery or options.ground_truth
    required = "--video and one of --out, --ground_truth and --gallery are required."
    reject(
        (options.video is None or not has_output, required),
        (options.detections and options.detector, "--detections excludes --detector."),
    )
    video = data.Video(str(options.video))
    _check_outputs(options, video)
    boxes = _detections(options, video)
    truth = read_mot(options.ground_truth) if options.ground_truth else None
    embeddings = _embeddings(options, video, boxes)
    settings = {name: getattr(options, name) for name in SETTINGS}
    looks = embeddings if options.appearance else None
    numbers = tracking.track_numbers(boxes, looks, **settings)
    kept = numbers > 0
    tracks = replace(boxes[kept], identity=numbers[kept])
    count = counted(len(np.unique(tracks.identity)), "track")
    say(f"{count} with {len(tracks):,} of {counted(len(boxes), 'detection')}")
    names: dict[int, str] = {}
    seconds = _seconds(options, video, tracks)
    if options.gallery and embeddings is not None:
        names = _identified(options, video.name, tracks, embeddings[kept], seconds)
    scores = None
    if truth is not None:
        scores = tracking.tracking_scores(truth, tracks, _benchmark(options))
    result = TrackResult(**vars(tracks), names=names, scores=scores)
    _write(options, video, result, seconds)
    return result


def _check_outputs(options: TrackOptions, video: data.Video) -> None:
    """Raise for outputs that exist or cannot be written, and for an unreadable video."""
    check_outputs(
        options.overwrite,
        out=options.out,
        annotated=options.annotated,
        timeline=options.timeline,
        scores=options.scores,
    )
    check_picture(timeline=options.timeline)
    if options.annotated:
        same = Path(options.annotated).resolve() == Path(str(options.video)).resolve()
        reject((same, "--annotated must differ from --video."))
    size = video.size
    if options.annotated:
        visualize.check_video(options.annotated, size)


def _embeddings(options: TrackOptions, video: data.Video, boxes: Boxes) -> np.ndarray | None:
    """Return the embeddings (n, d) of the boxes; None if no output needs them."""
    if options.appearance or options.gallery:
        embed, shape = options.pixel_embedder()
        tell, batch = progress("embedding persons"), options.embed_batch_size
        return tracking.embed_boxes(iter(video), boxes, embed, shape, batch, tell)
    if options.detections:
        boxes.check_frames(sum(1 for _ in video))
    return None


def _write(
    options: TrackOptions, video: data.Video, result: TrackResult, seconds: np.ndarray
) -> None:
    """Write the outputs and print the scores."""
    if options.annotated:
        rate = _rate(options, video)
        names, overwrite = result.names, options.overwrite
        visualize.write_tracks(options.annotated, video, result, names, rate, overwrite)
        say(f"annotated video: {options.annotated}")
    if options.out:
        write_mot(result, options.out, options.overwrite)
        say(f"tracks: {options.out}")
    if options.timeline:
        persons: dict[Any, list[tuple[float, float]]] = {}
        for number, span in _spans(options, result, seconds).items():
            persons.setdefault(result.names.get(number, number), []).append(span)
        picture = visualize.draw_timeline(persons)
        with new_file(options.timeline, options.overwrite) as file:
            picture.save(file)
        say(f"timeline: {options.timeline}")
    if result.scores is not None:
        say(str(result.scores))
        if options.scores:
            write_json(options.scores, vars(result.scores), options.overwrite)


def _benchmark(options: TrackOptions) -> str:
    folders = Path(str(options.ground_truth)).absolute().parts
    default = "MOT20" if any(name.startswith("MOT20") for name in folders) else "MOT17"
    return options.benchmark or default


def _rate(options: TrackOptions, video: data.Video) -> float:
    return options.frame_rate or video.rate or FOLDER_RATE


def _seconds(options: TrackOptions, video: data.Video, tracks: Boxes) -> np.ndarray:
    """Return the time (n,) of each box after the first frame."""
    times = None if options.frame_rate else video.times
    if times is None:
        return (tracks.frame - 1) / _rate(options, video)
    return times[tracks.frame - 1]


def _detections(options: TrackOptions, video: data.Video) -> Boxes:
    if options.detections:
        boxes = read_mot(options.detections)
    else:
        detector = options.load_detector()
        tell = progress("detecting, frames")
        boxes = tracking.detect_persons(video, detector, lambda done: tell(done, None))
    count = len(boxes)
    if options.min_confidence is not None:
        boxes = boxes[boxes.confidence >= options.min_confidence]
    if not len(boxes):
        rule = f"at least one person in {options.detections or 'the boxes of the detector'}"
        fix = "Lower --min_confidence." if count else "Give other detections, or another detector."
        raise invalid("detections", rule, Shown(f"0 of {count:,} boxes"), fix)
    return boxes


def _spans(
    options: TrackOptions, tracks: Boxes, seconds: np.ndarray
) -> dict[int, tuple[float, float]]:
    """Return the first and last second of each track."""
    numbers = np.unique(tracks.identity).tolist()
    times = {n: seconds[tracks.identity == n] + options.start for n in numbers}
    return {n: (float(t.min()), float(t.max())) for n, t in times.items()}


def _identified(
    options: TrackOptions, video: str, tracks: Boxes, embeddings: np.ndarray, seconds: np.ndarray
) -> dict[int, str]:
    with gallery.open(str(options.gallery)) as people:
        identities = tracking.identify_tracks(
            tracks,
            embeddings,
            people,
            options.camera,
            video,
            model_fingerprint=options.fingerprint,
            calibration=options.calibrated(people),
            match_probability=options.match_probability,
            seconds=seconds,
            start=options.start,
        )
    spans = _spans(options, tracks, seconds)
    for one in identities:
        how = "new" if one.distance is None else f"at distance {one.distance:.4f}"
        first, last = spans[one.track]
        say(f"track {one.track}: {one.identity}, {how}, {first:.2f} to {last:.2f} s")
    return {one.track: one.identity for one in identities}


SHOWN = "model video detections out annotated ground_truth gallery camera frame_rate"
run = Command(track, TrackOptions, SHOWN)
