"""Checks of detections: shapes, order and finite values."""

from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.data.mot import Boxes
from keras_reid.errors import Shown, invalid


def matrix(name: str, values: Any, columns: int | None) -> np.ndarray:
    """Return values as float64 (n, columns); None: any number of columns.

    Raises:
        InputError: the values are not empty and have another shape.
    """
    array = np.asarray(values, np.float64)
    if not array.size:
        return np.zeros((0, columns or 0))
    fix = "Pass one row for each box, of one size."
    checks.shapes(fix, **{name: (f"(n, {columns or 'd'})", array.shape)})
    return array


def check_order(**boxes: Boxes) -> None:
    """Raise for boxes that are not in the order of their frames.

    Raises:
        InputError: the argument.
    """
    for name, table in boxes.items():
        if (np.diff(table.frame) < 0).any():
            raise invalid(name, "sorted by frame", Shown("another order"))


def check_finite(frames: np.ndarray, **columns: np.ndarray) -> None:
    """Raise for NaN and infinity in columns (n, …) of detections in the frames (n,).

    Raises:
        InputError: the column, the frame, and the row counted from 0.
    """
    for name, values in columns.items():
        numbers = np.asarray(values, np.float64)
        checks.shapes(
            "Pass one row for each box.", **{name: (f"({len(frames)}, …)", numbers.shape)}
        )
        bad = np.argwhere(~np.isfinite(numbers))
        if len(bad):
            row = int(bad[0][0])
            received = Shown(f"{numbers[tuple(bad[0])]} in frame {int(frames[row])}, row {row}")
            fix = "Remove the row, or check the detector and the model."
            raise invalid(name, "finite", received, fix)
