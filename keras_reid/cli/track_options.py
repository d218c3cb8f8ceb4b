"""Options of `track`."""

from dataclasses import dataclass
from typing import ClassVar

from keras_reid import tracking
from keras_reid.cli.common import GalleryOptions
from keras_reid.cli.detector import DetectorOptions
from keras_reid.cli.options import option, reject
from keras_reid.errors import invalid
from keras_reid.tracking.pipeline import LEAST_RUNS, every_for

MOST_EVERY = 100


@dataclass(frozen=True, kw_only=True)
class TrackOptions(GalleryOptions, DetectorOptions):
    """Options of `track`: the video, the tracker, and the files to write."""

    unused: ClassVar[str] = "dataset data_dir protocol keypoints_cache"

    source: str | None = option(
        "Video file, image, folder of frames in natural order of names, address such as https://… "
        "or rtsp://…, or index of a camera such as 0.",
        topic="data",
    )
    max_reconnects: int = option(
        "Number of attempts in a row to reconnect to a lost stream.", 5, least=0, topic="data"
    )
    detections: str | None = option(
        "MOT text file of boxes. Default: boxes of --detector.", topic="data"
    )
    detections_out: str | None = option(
        "New MOT text file of the detections, for --detections.", topic="output"
    )
    detect_every: str = option(
        "Detector on every n-th frame, with interpolated boxes in between; auto: at least "
        f"{LEAST_RUNS:g} detector runs per second of the source, or all frames of --detections.",
        "auto",
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
    out: str | None = option(
        "New file of the tracks, written while it runs: .jsonl (JSON lines), else MOT text.",
        topic="output",
    )
    crops: str | None = option(
        "New folder of the best crops of each track; with --watch also an existing one.",
        topic="output",
    )
    crops_per_track: int = option("Maximum number of --crops of a track.", 3, least=1)
    annotated: str | None = option(
        "New video (.avi, .mp4) or new folder of frames, with boxes and names; not of a stream.",
        topic="output",
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
        "Time of the first frame in seconds since 1970, added to the times of all frames. 0: the "
        "present time for a stream.",
        0.0,
    )
    benchmark: str | None = option(
        "Benchmark that defines the classes of --ground_truth. Default: MOT20 if a folder of its "
        "path begins with MOT20, else MOT17.",
        choices=("MOT15", "MOT16", "MOT17", "MOT20"),
        topic="data",
    )
    watch: bool = option(
        "Line for each enrolled person of --gallery who appears or leaves. Nothing is enrolled.",
        False,
        topic="gallery",
    )
    watch_format: str = option(
        "Format of these lines.", "text", choices=("text", "json"), topic="gallery"
    )
    audit_log: str = option(
        "File to which --watch appends each line, as JSON.", "watch-audit.jsonl", topic="gallery"
    )
    retention: str | None = option(
        "Age from which --crops and lines of --audit_log are removed, such as 12h, 30d or 4w. "
        "Default: they are kept.",
        topic="gallery",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        required = "--watch or --crops is required for --retention."
        reject(
            (self.watch and not self.gallery, "--gallery is required for --watch."),
            (self.detections and self.detector, "--detections excludes --detector."),
            (self.retention and not (self.watch or self.crops), required),
        )
        if self.retention is not None:
            tracking.check_retention(self.retention)
        _ = self.every(None)

    def every(self, rate: float | None) -> int:
        """Return n of --detect_every for a source with a rate in frames per second."""
        if self.detect_every == "auto":
            return 1 if self.detections else every_for(rate)
        if not self.detect_every.isdecimal() or not 1 <= int(self.detect_every) <= MOST_EVERY:
            raise invalid("detect_every", f"auto, or from 1 to {MOST_EVERY}", self.detect_every)
        return int(self.detect_every)
