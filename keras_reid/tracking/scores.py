"""How good tracks are: MOTA, IDF1 and HOTA, by TrackEval."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid.data.mot import Boxes
from keras_reid.errors import InputError
from keras_reid.tracking.motion import overlaps

OVERLAP = 0.5  # of a found and a true box, for MOTA and IDF1


@dataclass(frozen=True)
class TrackingScores:
    """Scores of tracks: fractions, but for the counts; printing it prints a table.

    Attributes:
        mota: `1 − (misses + false alarms + switches) / true boxes`, at an overlap of 0.5; it can
            be negative (Bernardin and Stiefelhagen, 2008).
        idf1: F1 of boxes with the right identity, under the best matching of identities (Ristani
            et al., ECCV Workshops 2016, arXiv:1609.01775).
        hota, deta, assa: higher order tracking accuracy, of detection and of association, averaged
            over overlaps of 0.05 to 0.95 (Luiten et al., IJCV 2021, arXiv:2009.07736).
        switches, fragmentations, false_positives, misses: counts at an overlap of 0.5.
        boxes: true ones.
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
        names = ("mota", "idf1", "hota", "deta", "assa")
        lines = [f"{name.upper():<16}{100 * getattr(self, name):6.2f} %" for name in names]
        for name in ("switches", "fragmentations", "false_positives", "misses", "boxes"):
            lines.append(f"{name.replace('_', ' '):<16}{getattr(self, name):>6,}")
        return "\n".join(lines)


def tracking_scores(truth: Boxes, found: Boxes) -> TrackingScores:
    """Scores of the tracks of one video.

    Args:
        truth: true boxes with identities; leave those of confidence 0 out, which are to be ignored.
        found: the tracks.

    Raises:
        InputError: TrackEval is not installed, or there are no true boxes.
    """
    try:
        from trackeval.metrics import CLEAR, HOTA, Identity
    except ImportError as error:
        raise InputError(
            f"tracks are scored by TrackEval, which is not installed ({error}): "
            "pip install '.[tracking]' in the checkout"
        ) from error
    if not len(truth):
        raise InputError("tracks are scored against true boxes: received none")
    sequence = _sequence(truth, found)
    settings = {"THRESHOLD": OVERLAP, "PRINT_CONFIG": False}
    higher = HOTA().eval_sequence(sequence)
    clear = CLEAR(settings).eval_sequence(sequence)
    identity = Identity(settings).eval_sequence(sequence)
    if not len(found):  # TrackEval leaves these at 0 without tracks
        clear["MOTA"] = 0.0
    hota, deta, assa = (float(np.mean(higher[name])) for name in ("HOTA", "DetA", "AssA"))
    return TrackingScores(
        mota=float(clear["MOTA"]),
        idf1=float(identity["IDF1"]),
        hota=hota,
        deta=deta,
        assa=assa,
        switches=int(clear["IDSW"]),
        fragmentations=int(clear["Frag"]),
        false_positives=int(clear["CLR_FP"]),
        misses=int(clear["CLR_FN"]),
        boxes=len(truth),
    )


def _sequence(truth: Boxes, found: Boxes) -> dict[str, Any]:
    """Both sides frame by frame as TrackEval takes them, identities counted from 0."""
    sides = (truth, found)
    codes = [np.unique(side.identity, return_inverse=True) for side in sides]
    each: dict[str, list[np.ndarray]] = {"gt": [], "tracker": [], "similarity": []}
    frames = np.unique(np.concatenate([side.frame for side in sides]))
    for frame in frames:
        rows = [np.flatnonzero(side.frame == frame) for side in sides]
        for name, (_, code), chosen in zip(("gt", "tracker"), codes, rows, strict=True):
            each[name].append(code[chosen])
        each["similarity"].append(overlaps(truth.box[rows[0]], found.box[rows[1]]))
    return {
        "gt_ids": each["gt"],
        "tracker_ids": each["tracker"],
        "similarity_scores": each["similarity"],
        "num_timesteps": len(frames),
        "num_gt_ids": len(codes[0][0]),
        "num_tracker_ids": len(codes[1][0]),
        "num_gt_dets": len(truth),
        "num_tracker_dets": len(found),
    }
