"""Boxes of persons in video frames, in the text format of MOTChallenge.

Each line has a box: frame from 1, identity (−1: unlabeled), x and y of its upper left corner from
1, width, height and confidence. Ten columns, as in MOT15, end with three unused numbers
(Leal-Taixé et al., MOTChallenge 2015, arXiv:1504.01942). Eight or nine columns, as in the ground
truth of MOT16, MOT17 and MOT20, end with the class and the visibility (Milan et al., MOT16,
arXiv:1603.00831).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_reid.errors import Shown, counted, invalid
from keras_reid.io import new_file, parsing, read_text
from keras_reid.names import StrPath, expanded

UNLABELED = -1  # identity, and class
MOST = 10**9
WITH_CLASS = (8, 9)  # numbers of columns
PERSON = 1  # class of a pedestrian
CLASSES = range(1, 14)  # classes of MOT16, MOT17 and MOT20
RULE = (
    "be frame,identity,x,y,width,height,confidence,… with whole frames from 1, whole identities, "
    "sizes above 0, and a class from 1 to 13"
)


@dataclass(frozen=True, eq=False)
class Boxes:
    """n boxes of persons in the frames of a video.

    Attributes:
        frame: (n,) from 1.
        identity: (n,).
        box: (n, 4), x, y, w, h in pixels from 0.
        confidence: (n,); 0 in a ground truth marks persons that are not scored.
        others: boxes of other classes in the same frames, such as cars and sitting persons, for
            scores; None if unknown. Selected rows keep all of these boxes.
        category: (n,) classes of `others`; None for persons.
    """

    frame: np.ndarray
    identity: np.ndarray
    box: np.ndarray
    confidence: np.ndarray
    others: "Boxes | None" = None
    category: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: Any) -> "Boxes":
        category = None if self.category is None else self.category[rows]
        columns = self.frame, self.identity, self.box, self.confidence
        frame, identity, box, confidence = (column[rows] for column in columns)
        return Boxes(frame, identity, box, confidence, self.others, category)

    def check_identities(self) -> None:
        """Raise if an identity occurs twice in a frame.

        Raises:
            InputError: the frame and the identity.
        """
        pairs, counts = np.unique(
            np.stack([self.frame, self.identity], axis=1), axis=0, return_counts=True
        )
        if (counts > 1).any():
            frame, identity = pairs[counts > 1][0].tolist()
            received = Shown(f"{identity} {counts.max()} times in frame {frame}")
            fix = "Detections without identities must be tracked first (track.py)."
            raise invalid("identity", "unique in each frame", received, fix)

    def check_frames(self, count: int) -> None:
        """Raise if a box is after the last of `count` frames of a video.

        Raises:
            InputError: the number of frames, and the first frame of such a box.
        """
        beyond = self.frame[self.frame > count]
        if len(beyond):
            rule = f"in the {counted(count, 'frame')} of the video"
            received = Shown(f"a box in frame {beyond.min()}")
            raise invalid("boxes", rule, received, "Pass the table of this video.")


def read_mot(table: StrPath) -> Boxes:
    """Return the boxes of the persons in a `gt.txt`, `det.txt` or result file, ordered by frame.

    Numbers are separated by commas, or by spaces or tabs; a comma at the end of a line is ignored.
    Within a frame they keep the order of the file. Boxes of other classes than pedestrians (1) are
    in `Boxes.others`. A class of −1 means none.

    Args:
        table: the file.

    Raises:
        InputError: the file is missing, or a line does not have the format.
    """
    file = expanded(table)
    rows = []
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        with parsing(f"{file}, line {number}", RULE, f"Numbers end at {MOST:,}."):
            values = [float(text) for text in _texts(line)]
            frame, identity, x, y, width, height = values[:6]
            category = values[7] if len(values) in WITH_CLASS else PERSON
            whole = frame.is_integer() and identity.is_integer()
            positive = frame >= 1 and min(width, height) > 0
            finite = all(abs(value) <= MOST for value in values)
            if not (whole and positive and finite and category in (UNLABELED, *CLASSES)):
                raise ValueError(line[:80])
        confidence = values[6] if len(values) > 6 else 1.0
        rows.append((frame, identity, x - 1, y - 1, width, height, confidence, category))
    columns = np.array(sorted(rows, key=lambda row: row[0]), np.float64).reshape(-1, 8)
    frame, identity, category = columns[:, [0, 1, 7]].T.astype(np.int64)
    boxes = Boxes(frame, identity, columns[:, 2:6], columns[:, 6], category=category)
    person = (category == PERSON) | (category == UNLABELED)
    others = None if person.all() else boxes[~person]
    return replace(boxes[person], others=others, category=None)


def _texts(line: str) -> list[str]:
    text = line.strip().rstrip(",")
    # Not both: "10,5 20,5" has decimal commas, which float() rejects.
    return text.split("," if "," in text else None)


def write_mot(boxes: Boxes, table: StrPath, overwrite: bool = False) -> None:
    """Write boxes to a file.

    Args:
        boxes: n boxes; `boxes.others` is left out.
        table: the file, in the ten columns of MOT15.
        overwrite: replace an existing file.

    Raises:
        InputError: the file exists or cannot be written.

    Example:
        >>> import tempfile
        >>> boxes = Boxes(np.array([1]), np.array([7]), np.array([[0, 0, 20, 50]]), np.ones(1))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_mot(boxes, f"{folder}/tracks.txt")
        ...     print(read_text(f"{folder}/tracks.txt").strip())
        1,7,1.00,1.00,20.00,50.00,1,-1,-1,-1
    """
    columns = (boxes.frame, boxes.identity, boxes.box, boxes.confidence)
    with new_file(table, overwrite) as file:
        file.write_text("".join(mot_line(*row) + "\n" for row in zip(*columns, strict=True)))


def mot_line(frame: int, identity: int, box: np.ndarray, confidence: float, digits: int = 2) -> str:
    """Return the line of a box (x, y, w, h in pixels from 0), with so many decimal places."""
    x, y, w, h = box
    numbers = ",".join(f"{number:.{digits}f}" for number in (x + 1, y + 1, w, h))
    return f"{int(frame)},{int(identity)},{numbers},{confidence:.4g},-1,-1,-1"
