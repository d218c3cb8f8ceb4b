"""Scores of tracks: MOTA, IDF1 and HOTA, by TrackEval."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.data.mot import PERSON, Boxes
from keras_reid.errors import Shown, invalid

OVERLAP = 0.5  # IoU of a tracked and a true box, for MOTA and IDF1
BENCHMARKS = ("MOT15", "MOT16", "MOT17", "MOT20")


@dataclass(frozen=True)
class TrackingScores:
    """Scores of tracks as fractions, and counts; `str` returns a table.

    Attributes:
        mota: `1 − (misses + false alarms + switches) / true boxes`, at an overlap of 0.5; it can
            be negative (Bernardin and Stiefelhagen, 2008).
        idf1: F1 of boxes with the right identity, under the best matching of identities (Ristani
            et al., ECCV Workshops 2016, arXiv:1609.01775).
        hota, deta, assa: higher order tracking accuracy, of detection and of association, averaged
            over overlaps of 0.05 to 0.95 (Luiten et al., IJCV 2021, arXiv:2009.07736).
        switches, fragmentations, false_positives, misses: counts at an overlap of 0.5.
        boxes: number of true boxes that are scored.
    """

    mota: float
    idf1: float
    hota: float
    deta: float
    assa: float
    switches: int
    fragmentations: int
    false_positives: int
    misses: int
    boxes: int

    def __str__(self) -> str:
        names = ("MOTA", "IDF1", "HOTA", "DetA", "AssA")
        lines = [f"{name:<16}{100 * getattr(self, name.lower()):6.2f} %" for name in names]
        for name in ("switches", "fragmentations", "false_positives", "misses", "boxes"):
            lines.append(f"{name.replace('_', ' '):<16}{getattr(self, name):>6,}")
        return "\n".join(lines)


def tracking_scores(truth: Boxes, tracks: Boxes, benchmark: str = "MOT17") -> TrackingScores:
    """Score the tracks of one video after TrackEval's preprocessing.

    Tracks that match boxes of distractor classes in `truth.others` are removed: 2, 7, 8 and 12, and
    6 for MOT20. Other classes are ignored.

    Args:
        truth: true boxes with identities, as from `read_mot`; those of confidence 0 are not scored.
        tracks: boxes of persons with the numbers of tracks.
        benchmark: MOT15, which has no classes, MOT16, MOT17 or MOT20.

    Raises:
        InputError: TrackEval is not installed, there are no true boxes, an identity occurs twice in
            a frame, tracks of other classes than pedestrians, or an unknown benchmark.
    """
    checks.one_of(BENCHMARKS, benchmark=benchmark)
    metrics = checks.installed("trackeval.metrics", "tracking")
    if tracks.others is not None:
        received = Shown(f"{len(tracks.others)} boxes of other classes")
        raise invalid("tracks", "pedestrians (class 1)", received, "Remove them from the file.")
    if not truth.confidence.any():
        raise invalid("truth", "at least one box with a confidence above 0", Shown("none"))
    sequence = _sequence(truth, tracks, benchmark)
    settings = {"THRESHOLD": OVERLAP, "PRINT_CONFIG": False}
    higher = metrics.HOTA().eval_sequence(sequence)
    clear = metrics.CLEAR(settings).eval_sequence(sequence)
    identity = metrics.Identity(settings).eval_sequence(sequence)
    if not sequence["num_tracker_dets"]:  # TrackEval leaves these at 0 without tracks
        clear["MOTA"] = 0.0
    return TrackingScores(
        mota=float(clear["MOTA"]),
        idf1=float(identity["IDF1"]),
        hota=float(np.mean(higher["HOTA"])),
        deta=float(np.mean(higher["DetA"])),
        assa=float(np.mean(higher["AssA"])),
        switches=int(clear["IDSW"]),
        fragmentations=int(clear["Frag"]),
        false_positives=int(clear["CLR_FP"]),
        misses=int(clear["CLR_FN"]),
        boxes=int(sequence["num_gt_dets"]),
    )


def _sequence(truth: Boxes, tracks: Boxes, benchmark: str) -> dict[str, Any]:
    """Return the input of TrackEval's metrics, read and preprocessed by TrackEval from files."""
    from trackeval.datasets import MotChallenge2DBox

    truth = _with_others(truth)
    truth.check_identities()
    tracks.check_identities()
    frames = np.union1d(truth.frame, tracks.frame)
    with TemporaryDirectory() as folder:
        _write(Path(folder) / "truth/video/gt/gt.txt", truth, frames)
        _write(Path(folder) / "tracks/data/video.txt", tracks, frames)
        settings = {
            "GT_FOLDER": f"{folder}/truth",
            "TRACKERS_FOLDER": folder,
            "TRACKERS_TO_EVAL": ["tracks"],
            "SEQ_INFO": {"video": len(frames)},
            "SKIP_SPLIT_FOL": True,
            "BENCHMARK": benchmark,
            "PRINT_CONFIG": False,
        }
        reader = MotChallenge2DBox(settings)
        raw = reader.get_raw_seq_data("tracks", "video")
        return reader.get_preprocessed_seq_data(raw, "pedestrian")


def _with_others(truth: Boxes) -> Boxes:
    """Return persons and other classes in one table, with their classes."""
    persons = replace(truth, category=np.full(len(truth), PERSON))
    if truth.others is None:
        return persons
    both = (persons, truth.others)
    frame, identity, box, confidence, category = (
        np.concatenate([getattr(part, name) for part in both])
        for name in ("frame", "identity", "box", "confidence", "category")
    )
    whole = Boxes(frame, identity, box, confidence, category=category)
    # The order of the benchmark's files, so that TrackEval's matching resolves ties as for these.
    return whole[np.lexsort((whole.identity, whole.frame))]


def _write(file: Path, boxes: Boxes, frames: np.ndarray) -> None:
    """Write boxes for TrackEval, with frames and identities counted from 1 without gaps."""
    category = np.full(len(boxes), PERSON) if boxes.category is None else boxes.category
    columns = (
        np.searchsorted(frames, boxes.frame) + 1,
        np.unique(boxes.identity, return_inverse=True)[1] + 1,
        *boxes.box.T,
        (boxes.confidence != 0).astype(int),
        category,
    )
    file.parent.mkdir(parents=True)
    np.savetxt(file, np.column_stack(columns), "%.17g", ",")
