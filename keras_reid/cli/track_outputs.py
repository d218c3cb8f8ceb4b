"""Outputs that `track` writes while it runs."""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from keras_reid import data, gallery, tracking
from keras_reid.cli.terminal import say
from keras_reid.cli.track_options import TrackOptions
from keras_reid.data.mot import UNLABELED, mot_line
from keras_reid.io import growing_file
from keras_reid.tracking.online import TrackBox
from keras_reid.tracking.pipeline import FrameTracks


class LiveOutputs:
    """Files of tracks, detections and crops, and the lines of a watch.

    Args:
        options: options of the command.
        video: source of the frames.
        stack: stack that closes the files.
    """

    def __init__(
        self, options: TrackOptions, video: data.Video | data.Stream, stack: ExitStack
    ) -> None:
        is_stream = isinstance(video, data.Stream)
        self.options = options
        self.start = options.start or (time.time() if is_stream else 0.0)

        def opened(path: str | None) -> TextIO | None:
            return (
                stack.enter_context(growing_file(path, is_stream, options.overwrite))
                if path
                else None
            )

        self._crops = _crops(options)
        log = tracking.AuditLog(options.audit_log) if options.watch else None
        self._watch = self._watcher(log, video.name, stack) if log else None
        self._retention = None
        if options.retention:
            self._retention = tracking.Retention(options.retention, log, options.crops)
        self._tracks, self._detections = opened(options.out), opened(options.detections_out)
        self._line = json_line if Path(str(options.out)).suffix == ".jsonl" else text_line
        self._times: dict[int, float] = {}  # of frames whose tracks are not complete

    def add(self, frame: FrameTracks, seconds: float) -> None:
        """Write the new tracks, detections and crops.

        Args:
            frame: frame with its tracks.
            seconds: time of the frame after the first one.
        """
        if self._retention:
            self._retention.apply()
        if self._crops:
            self._crops.add(frame)
        if self._watch:
            self._watch(frame._replace(seconds=seconds))
        if self._detections and frame.image is not None:
            for box, confidence in zip(frame.boxes, frame.confidence, strict=True):
                line = mot_line(frame.number, UNLABELED, box, confidence, digits=4)
                self._detections.write(line + "\n")
        self._times[frame.number] = self.start + seconds
        if self._tracks and frame.complete:
            times = np.interp(
                [one.frame for one in frame.complete], [*self._times], [*self._times.values()]
            )
            for one, moment in zip(frame.complete, times.tolist(), strict=True):
                self._tracks.write(self._line(one, moment) + "\n")
        if frame.complete:
            first = frame.complete[-1].frame
            self._times = {n: t for n, t in self._times.items() if n >= first}

    def _watcher(
        self, log: tracking.AuditLog, source: str, stack: ExitStack
    ) -> Callable[[FrameTracks], None]:
        """Return a function that prints and logs the events of a frame."""
        options = self.options
        people = stack.enter_context(gallery.open(options.uri))
        options.calibrated(people)
        watch = tracking.Watch(
            people,
            options.camera,
            model_fingerprint=options.fingerprint,
            limits=options.limits,
            begin=self.start,
            crops=self._crops,
        )
        facts = {"camera": options.camera, "source": source, "gallery": options.uri}
        log.append(event="start", **facts)
        stack.callback(log.append, event="end", **facts)

        def report(frame: FrameTracks) -> None:
            for event in watch.update(frame):
                log.append(**event._asdict())
                as_json = options.watch_format == "json"
                say(json.dumps(event._asdict(), ensure_ascii=False) if as_json else str(event))

        return report


def _crops(options: TrackOptions) -> tracking.BestCrops | None:
    """Return the folder of crops; runs of a watch have a folder each in --crops."""
    if not options.crops:
        return None
    folder = Path(options.crops)
    if options.watch:
        folder /= datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S-%f")
    return tracking.BestCrops(folder, options.crops_per_track)


def text_line(one: TrackBox, _: float) -> str:
    """Return the line of a box in a MOT text file."""
    return mot_line(one.frame, one.track, one.box, one.confidence)


def json_line(one: TrackBox, moment: float) -> str:
    """Return a box as a line of JSON; x and y begin at 0."""
    value: dict[str, Any] = {
        "frame": one.frame,
        "time": round(moment, 3),
        "track": one.track,
        "box": [round(number, 2) for number in one.box.tolist()],
        "confidence": round(one.confidence, 4),
        "interpolated": one.row is None,
    }
    return json.dumps(value)
