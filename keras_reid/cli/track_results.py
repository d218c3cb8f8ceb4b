"""Results of `track`, and outputs that need all frames."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid import data, gallery, tracking, visualize
from keras_reid.cli.terminal import say, write_json
from keras_reid.cli.track_options import TrackOptions
from keras_reid.data.mot import Boxes
from keras_reid.io import new_file
from keras_reid.tracking.online import TrackBox
from keras_reid.tracking.pipeline import FrameTracks

FOLDER_RATE = 25.0  # frames per second of a folder without --frame_rate


@dataclass(frozen=True, eq=False)
class TrackResult(Boxes):
    """Boxes of the tracks, with the printed results; of a stream, no boxes.

    Attributes:
        names: identity in the gallery of each track; empty if there is no gallery.
        scores: scores against the ground truth; None if `ground_truth` is not set.
    """

    names: dict[int, str] = field(default_factory=dict)
    scores: "tracking.TrackingScores | None" = None


@dataclass
class Seen:
    """Numbers of a run, and its boxes, embeddings and times unless the source is a stream."""

    frames: int = 0
    detections: int = 0
    detected: int = 0  # boxes of tracks that are detections
    tracks: int = 0
    boxes: list[TrackBox] = field(default_factory=list)
    embeddings: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def count(self, frame: FrameTracks) -> None:
        self.frames = frame.number
        self.detections += len(frame.boxes)
        self.detected += sum(one.row is not None for one in frame.complete)
        self.tracks = max([self.tracks, *(one.track for one in frame.complete)])

    def table(self) -> Boxes:
        """Return the boxes of the tracks."""
        frame, track, box, confidence, _ = zip(*self.boxes, strict=True) if self.boxes else [()] * 5
        columns = np.array(frame, int), np.array(track, int), np.reshape(box, (-1, 4))
        return Boxes(*columns, np.array(confidence, float))


def finish(
    options: TrackOptions,
    video: data.Video | data.Stream,
    seen: Seen,
    truth: Boxes | None,
    interrupted: bool,
) -> TrackResult:
    """Write the outputs that need all frames, and return the result."""
    tracks = seen.table()
    if isinstance(video, data.Stream):
        return TrackResult(**vars(tracks))
    seconds = np.array(seen.seconds)[tracks.frame - 1] if len(tracks) else np.zeros(0)
    if interrupted:
        if len(tracks):
            _draw_timeline(options, tracks, {}, seconds)
        return TrackResult(**vars(tracks))
    names, scores = {}, None
    if options.gallery and not options.watch:
        names = _identified(options, video.name, seen, tracks, seconds)
    if truth is not None:
        scores = tracking.tracking_scores(truth, tracks, _benchmark(options))
    if options.annotated:
        rate = options.frame_rate or video.rate or FOLDER_RATE
        visualize.write_tracks(options.annotated, video, tracks, names, rate, options.overwrite)
        say(f"annotated video: {options.annotated}")
    _draw_timeline(options, tracks, names, seconds)
    if scores is not None:
        say(str(scores))
        if options.scores:
            write_json(options.scores, vars(scores), options.overwrite)
    return TrackResult(**vars(tracks), names=names, scores=scores)


def _draw_timeline(
    options: TrackOptions, tracks: Boxes, names: dict[int, str], seconds: np.ndarray
) -> None:
    if options.timeline:
        persons: dict[Any, list[tuple[float, float]]] = {}
        for number, span in _spans(options, tracks, seconds).items():
            persons.setdefault(names.get(number, number), []).append(span)
        picture = visualize.draw_timeline(persons)
        with new_file(options.timeline, options.overwrite) as file:
            picture.save(file)
        say(f"timeline: {options.timeline}")


def _benchmark(options: TrackOptions) -> str:
    folders = Path(str(options.ground_truth)).absolute().parts
    default = "MOT20" if any(name.startswith("MOT20") for name in folders) else "MOT17"
    return options.benchmark or default


def _spans(
    options: TrackOptions, tracks: Boxes, seconds: np.ndarray
) -> dict[int, tuple[float, float]]:
    """Return the first and last second of each track."""
    numbers = np.unique(tracks.identity).tolist()
    times = {n: seconds[tracks.identity == n] + options.start for n in numbers}
    return {n: (float(t.min()), float(t.max())) for n, t in times.items()}


def _identified(
    options: TrackOptions, video: str, seen: Seen, tracks: Boxes, seconds: np.ndarray
) -> dict[int, str]:
    """Enrol the tracks, and return their identities."""
    rows = np.array([-1 if one.row is None else one.row for one in seen.boxes], int)
    detected = rows >= 0
    with gallery.open(str(options.gallery)) as people:
        identities = tracking.identify_tracks(
            tracks[detected],
            np.concatenate([x for x in seen.embeddings if len(x)])[rows[detected]],
            people,
            options.camera,
            video,
            model_fingerprint=options.fingerprint,
            calibration=options.calibrated(people),
            match_probability=options.match_probability,
            seconds=seconds[detected],
            start=options.start,
        )
    spans = _spans(options, tracks, seconds)
    for one in identities:
        how = "new" if one.distance is None else f"at distance {one.distance:.4f}"
        first, last = spans[one.track]
        say(f"track {one.track}: {one.identity}, {how}, {first:.2f} to {last:.2f} s")
    return {one.track: one.identity for one in identities}
