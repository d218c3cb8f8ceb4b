"""`keras-reid track --source=VIDEO --out=tracks.txt`: tracks of persons in a video or a stream.

The embedder is --model, by default the pretrained model. Detections become tracks by appearance and
motion. --ground_truth scores them, --annotated draws them, and --gallery identifies persons across
cameras: run the command for each camera with the same gallery. --watch prints the enrolled persons
who appear and leave. A camera or a stream is tracked until Ctrl-C.
"""

import os
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import data, tracking, visualize
from keras_reid.cli.options import Command, reject
from keras_reid.cli.terminal import check_outputs, check_picture, interruption, progress, say
from keras_reid.cli.track_options import TrackOptions
from keras_reid.cli.track_outputs import LiveOutputs
from keras_reid.cli.track_results import Seen, TrackResult, finish
from keras_reid.data.mot import Boxes, read_mot
from keras_reid.errors import Shown, counted, invalid
from keras_reid.tracking.pipeline import Detect, FrameTracks, tracks_for

# Arguments of `tracking.Tracker`.
SETTINGS = ("max_cosine_distance", "motion_weight", "min_iou", "n_init", "max_age")
AT_END = ("annotated", "timeline", "ground_truth", "scores")  # flags that need all frames


def track(options: TrackOptions) -> TrackResult:
    """Detect, embed, track, score and write.

    The source, its size and the outputs are checked first. Tracks, detections and crops are written
    while frames are read, other outputs at the end.
    """
    required = "--source and one of --out, --crops, --detections_out, --ground_truth and --gallery "
    names = ("out", "crops", "detections_out", "gallery", "ground_truth")
    has_output = any(getattr(options, name) for name in names)
    reject((options.source is None or not has_output, f"{required}are required."))
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its errors are reported once, here
    video = data.open_video(str(options.source), options.max_reconnects)
    _check_outputs(options, video)
    every = options.every(options.frame_rate or video.rate)
    given = _read_detections(options)
    truth = read_mot(options.ground_truth) if options.ground_truth else None
    seen = Seen()
    with ExitStack() as stack:
        outputs = LiveOutputs(options, video, stack)
        with interruption() as stop:
            frames = _frames(options, video, given, every, stop.is_set)
            for frame in stack.enter_context(closing(frames)):
                seconds = _second(options, frame)
                outputs.add(frame, seconds)
                _remember(options, video, seen, frame, seconds)
        if not stop.is_set():
            _check_detections(options, given, seen)
        _report(options, seen, every)
        result = finish(options, video, seen, truth, stop.is_set())
    if stop.is_set():
        raise KeyboardInterrupt(_interrupted(options, seen))
    return result


def _check_outputs(options: TrackOptions, video: data.Video | data.Stream) -> None:
    """Raise for outputs that exist or cannot be written, and for an unreadable source."""
    written = ("out", "detections_out", "annotated", "timeline", "scores")
    check_outputs(options.overwrite, **{name: getattr(options, name) for name in written})
    check_picture(timeline=options.timeline)
    folder = Path(options.crops) if options.crops else None
    if folder and not options.watch and folder.exists() and any(folder.iterdir()):
        raise invalid("crops", "a new or empty folder", options.crops, "Choose another path.")
    if isinstance(video, data.Stream):
        late = [name for name in AT_END if getattr(options, name)]
        if options.gallery and not options.watch:
            late.append("gallery")
        if late:
            received, fix = Shown(f"the stream {video.name}"), f"Record it, or omit --{late[0]}."
            raise invalid("source", f"a recording for --{late[0]}", received, fix)
    size = video.size
    if options.annotated:
        same = Path(options.annotated).resolve() == Path(str(options.source)).resolve()
        reject((same, "--annotated must differ from --source."))
        visualize.check_video(options.annotated, size)


def _frames(
    options: TrackOptions,
    video: data.Video | data.Stream,
    given: Boxes | None,
    every: int,
    stopped: Any,
) -> Generator[FrameTracks]:
    """Yield the frames with their tracks, and report the progress."""
    detect = _detect(options, given)
    crops = None
    if options.appearance or options.gallery:
        crops = tracking.Crops(*options.pixel_embedder(), options.embed_batch_size)
    settings = {name: getattr(options, name) for name in SETTINGS}
    if video.count == 1:  # an image
        settings["n_init"] = 1
    tracks = tracks_for(every, appearance=options.appearance, **settings)
    tell, total = progress("tracking, frames"), video.count
    with closing(tracking.follow(video, detect, tracks, crops, stopped)) as frames:
        for frame in frames:
            tell(frame.number, total)
            yield frame


def _detect(options: TrackOptions, given: Boxes | None) -> Detect:
    """Return the function of the number and the pixels of a frame that returns its detections."""
    if given is not None:

        def look_up(number: int, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = slice(*np.searchsorted(given.frame, (number, number + 1)))
            return given.box[rows], given.confidence[rows]

        return look_up
    detector = tracking.in_scene(options.load_detector())
    least = -np.inf if options.min_confidence is None else options.min_confidence

    def detect(_: int, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, confidence = map(np.asarray, detector(image))
        return boxes[confidence >= least], confidence[confidence >= least]

    return detect


def _read_detections(options: TrackOptions) -> Boxes | None:
    if not options.detections:
        return None
    boxes = read_mot(options.detections)
    count = len(boxes)
    if options.min_confidence is not None:
        boxes = boxes[boxes.confidence >= options.min_confidence]
    if not len(boxes):
        received = Shown(f"0 of {count:,} boxes of {options.detections}")
        fix = "Lower --min_confidence." if count else "Give other detections."
        raise invalid("detections", "boxes of at least one person", received, fix)
    return boxes


def _check_detections(options: TrackOptions, given: Boxes | None, seen: Seen) -> None:
    """Raise for detections beyond the last frame, and for no detections."""
    if given is not None:
        given.check_frames(seen.frames)
    elif not (seen.detections or options.watch):
        rule, received = "frames with at least one person", Shown("no detection")
        raise invalid("source", rule, received, "Use another detector.")


def _second(options: TrackOptions, frame: FrameTracks) -> float:
    """Return the seconds from the first frame to this one."""
    if options.frame_rate:
        return max(0, frame.number - 1) / options.frame_rate
    return frame.seconds


def _remember(
    options: TrackOptions,
    video: data.Video | data.Stream,
    seen: Seen,
    frame: FrameTracks,
    second: float,
) -> None:
    """Count a frame, and keep the boxes and embeddings for the outputs at the end."""
    if isinstance(video, data.Video):
        seen.boxes += frame.complete
        if frame.number > seen.frames:
            seen.seconds.append(second)
        if options.gallery and not options.watch and frame.embeddings is not None:
            seen.embeddings.append(frame.embeddings)
    seen.count(frame)


def _report(options: TrackOptions, seen: Seen, every: int) -> None:
    total = counted(seen.detections, "detection")
    say(f"{counted(seen.tracks, 'track')} with {seen.detected:,} of {total}")
    for name, path in (("tracks", options.out), ("crops", options.crops)):
        if path:
            say(f"{name}: {path}")
    if options.detections_out:
        again = f" (use them with --detect_every={every})" if every > 1 else ""
        say(f"detections: {options.detections_out}{again}")


def _interrupted(options: TrackOptions, seen: Seen) -> str:
    text = f"Interrupted after frame {seen.frames:,}."
    late = [name for name in ("annotated", "gallery", "scores") if getattr(options, name)]
    late = [name for name in late if not (name == "gallery" and options.watch)]
    return f"{text} Not written: --{', --'.join(late)}." if late else text


SHOWN = (
    "model source detections out crops annotated ground_truth gallery camera frame_rate "
    "detect_every watch"
)
run = Command(track, TrackOptions, SHOWN)
