"""MOT files in the forms that other tools write."""

import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import data, tracking
from keras_reid.data.mot import Boxes, read_mot
from keras_reid.errors import InputError

ROWS = ((1, 2, 10.5, 20, 30, 60, 0.5), (2, 2, 12, 20, 30.25, 60, 0.75))


@pytest.mark.parametrize(
    ("separator", "end"),
    [
        *((",", ""), (" ", ""), ("\t", ""), ("   ", ""), (" \t", " "), (", ", ""), (",\t", "")),
        *((" , ", ""), (",", ","), (",", ", "), (",", " ,"), (" ", ","), ("\t", "\t")),
        (" ", "\r"),
    ],
)
def test_read_mot_separators_of_other_tools_give_same_boxes(tmp_path, separator, end):
    rows = [separator.join(map(str, row)) + end for row in ROWS]
    (tmp_path / "det.txt").write_text("".join(row + "\n" for row in rows), newline="")
    boxes = read_mot(tmp_path / "det.txt")
    assert boxes.frame.tolist() == [1, 2]
    assert boxes.identity.tolist() == [2, 2]
    np.testing.assert_allclose(boxes.box, [[9.5, 19, 30, 60], [11, 19, 30.25, 60]])
    assert boxes.confidence.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(
    "row", ["1 1 1 1 5 5 1 3 1", "1\t1\t1\t1\t5\t5\t1\t3\t1", "1,1,1,1,5,5,1,3,"]
)
def test_read_mot_class_column_is_read_with_any_separator(tmp_path, row):
    (tmp_path / "gt.txt").write_text(row + "\n")
    boxes = read_mot(tmp_path / "gt.txt")
    assert len(boxes) == 0
    assert boxes.others.category.tolist() == [3]


@pytest.mark.parametrize(
    "row", ["1 -1 10,5 20,5 30 60 1", "1;-1;10;20;30;60;1", "1,-1,,20,30,60", "1 -1 10 20 30", ","]
)
def test_read_mot_ambiguous_or_incomplete_line_raises(tmp_path, row):
    (tmp_path / "det.txt").write_text(row + "\n")
    with pytest.raises(InputError, match=r"det.txt, line 1` must be frame,identity,x,y"):
        read_mot(tmp_path / "det.txt")


@pytest.fixture
def street(tmp_path):
    """Five frames, and five scores of a DPM detector: two are negative."""
    (tmp_path / "frames").mkdir()
    scores = (-0.6, 1.7, 0, -1, 0.2)
    rows = [f"{n} -1 5 5 10 30 {score} -1 -1 -1" for n, score in enumerate(scores, start=1)]
    for number in range(1, 6):
        Image.new("RGB", (60, 60)).save(tmp_path / f"frames/{number}.png")
    (tmp_path / "det.txt").write_text("\n".join(rows))
    return tmp_path


@pytest.mark.parametrize(
    ("flags", "count"),
    [((), 5), (("--min_confidence=0",), 3), (("--min_confidence=-0.7",), 4)],
)
def test_track_negative_confidences_are_kept_by_default(street, flags, count):
    code, out, err = within(
        *("track.py", "--source=frames", "--detections=det.txt", "--noappearance", "--out=t.txt"),
        *flags,
        cwd=street,
    )
    assert code == 0, err
    assert f"of {count} detections" in out


def test_track_threshold_above_all_detections_raises(street):
    flags = ("--source=frames", "--detections=det.txt", "--noappearance", "--out=t.txt")
    code, _, err = within("track.py", *flags, "--min_confidence=2", cwd=street)
    assert code == 1
    assert "got 0 of 5 boxes of det.txt" in err


def test_truth_negative_confidence_is_scored_and_cut(street):
    """Results of some trackers have −1 for all confidences; only 0 marks boxes to ignore."""
    frames = np.arange(1, 6)
    box = np.tile([5.0, 5, 10, 30], (5, 1))
    confidence = np.array([-1.0, -1, 0, -1, -1])
    tracks = Boxes(frames, np.ones(5, int), box, confidence)
    (street / "tracks.txt").write_text(
        "".join(f"{n} 1 6 6 10 30 {c} -1 -1 -1\n" for n, c in zip(frames, confidence, strict=True))
    )
    cut = data.cut_tracklets(street / "frames", street / "tracks.txt", street / "cut")
    assert len(cut) == len(list((street / "cut").iterdir())) == 4
    pytest.importorskip("trackeval", reason="TrackEval, extra tracking, is not installed")
    assert tracking.tracking_scores(tracks, tracks).boxes == 4
