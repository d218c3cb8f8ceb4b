"""Boxes of persons in the frames of a video, in the text format of MOTChallenge.

One line for each box: frame from 1, identity (−1: unknown), x and y of its left upper corner from
1, width, height, confidence, and three numbers that are not looked at (Leal-Taixé et al.,
MOTChallenge 2015, arXiv:1504.01942).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_reid.errors import InputError
from keras_reid.files import new_file
from keras_reid.foreign import read_text

NOBODY = -1
MOST = 10**9


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of persons, n of them.

    Attributes:
        frame: (n,) from 1.
        identity: (n,).
        box: (n, 4), x, y, w, h in pixels from 0.
        confidence: (n,).
    """

    frame: np.ndarray
    identity: np.ndarray
    box: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: Any) -> "Boxes":
        return Boxes(self.frame[rows], self.identity[rows], self.box[rows], self.confidence[rows])


def read_mot(table: str | os.PathLike[str]) -> Boxes:
    """The boxes of a `gt.txt`, `det.txt` or result file, in the order of their frames.

    Raises:
        InputError: a file that is missing, or a line that is none of the format.
    """
    file = Path(table).expanduser()
    if not file.is_file():
        raise InputError(f"boxes are read from a MOT text file: {file} is none")
    rows = []
    for number, line in enumerate(read_text(file, "a table of boxes").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = [float(text) for text in line.split(",")]
            frame, identity, x, y, width, height = values[:6]
            counts = frame.is_integer() and identity.is_integer()
            if not all(abs(value) <= MOST for value in values) or not counts:
                raise ValueError("not whole, not finite or too large")
            if frame < 1 or min(width, height) <= 0:
                raise ValueError("not positive")
        except ValueError as error:
            raise InputError(
                f"line {number} of {file} must be frame,identity,x,y,width,height,confidence,…, "
                f"frames from 1, sizes above 0, none beyond {MOST:,}: received "
                f"{line[:80]!r} ({error})"
            ) from None
        rows.append((frame, identity, x - 1, y - 1, width, height, *values[6:7], *[1.0])[:7])
    table_ = np.array(sorted(rows, key=lambda row: row[:2]), np.float64).reshape(-1, 7)
    whole = table_[:, :2].astype(np.int64)
    return Boxes(whole[:, 0], whole[:, 1], table_[:, 2:6], table_[:, 6])


def write_mot(boxes: Boxes, table: str | os.PathLike[str]) -> None:
    """Writes boxes as a new file.

    Raises:
        InputError: it exists.
    """
    lines = [
        f"{frame},{identity},{x + 1:.2f},{y + 1:.2f},{w:.2f},{h:.2f},{confidence:.4g},-1,-1,-1"
        for frame, identity, (x, y, w, h), confidence in zip(
            boxes.frame.tolist(),
            boxes.identity.tolist(),
            boxes.box.tolist(),
            boxes.confidence.tolist(),
            strict=True,
        )
    ]
    with new_file(table) as file:
        file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
