"""Scores of tracks are those of TrackEval from the same files."""

import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import data
from keras_reid.data.mot import Boxes, read_mot, write_mot
from keras_reid.errors import InputError
from keras_reid.tracking import tracking_scores

trackeval = pytest.importorskip("trackeval", reason="TrackEval, extra tracking, is not installed")

FRAMES = 10


def lines(identity, x, ending, frames=FRAMES, width=50):
    """A box for each frame that moves by a pixel."""
    return [f"{f},{identity},{x + f},10,{width},100,{ending}" for f in range(1, frames + 1)]


@pytest.fixture
def files(tmp_path):
    """A function that writes a ground truth and a result for TrackEval, and returns both files."""

    def write(truth, result):
        paths = (tmp_path / "gt/S1/gt/gt.txt", tmp_path / "tr/mine/data/S1.txt")
        for path, rows in zip(paths, (truth, result), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(row + "\n" for row in rows))
        return paths

    return write


def official(root, benchmark, frames=FRAMES):
    """Scores of TrackEval."""
    config = {
        "GT_FOLDER": str(root / "gt"),
        "TRACKERS_FOLDER": str(root / "tr"),
        "TRACKERS_TO_EVAL": ["mine"],
        "BENCHMARK": benchmark,
        "SEQ_INFO": {"S1": frames},
        "SKIP_SPLIT_FOL": True,
        "PRINT_CONFIG": False,
    }
    videos = trackeval.datasets.MotChallenge2DBox(config)
    sequence = videos.get_preprocessed_seq_data(videos.get_raw_seq_data("mine", "S1"), "pedestrian")
    clear, identity = (
        getattr(trackeval.metrics, name)({"PRINT_CONFIG": False}).eval_sequence(sequence)
        for name in ("CLEAR", "Identity")
    )
    higher = trackeval.metrics.HOTA().eval_sequence(sequence)
    return {
        "mota": clear["MOTA"],
        "idf1": identity["IDF1"],
        **{name.lower(): higher[name].mean() for name in ("HOTA", "DetA", "AssA")},
        "switches": clear["IDSW"],
        "fragmentations": clear["Frag"],
        "false_positives": clear["CLR_FP"],
        "misses": clear["CLR_FN"],
        "boxes": sequence["num_gt_dets"],
    }


@pytest.mark.parametrize("category", range(1, 14))
@pytest.mark.parametrize("benchmark", ["MOT16", "MOT17", "MOT20"])
def test_scores_track_on_each_class_are_those_of_trackeval(tmp_path, files, benchmark, category):
    truth = [*lines(1, 10, "1,1,1"), *lines(2, 300, f"{int(category == 1)},{category},0.8")]
    result = [*lines(1, 10, "1,-1,-1,-1"), *lines(2, 300, "1,-1,-1,-1")]
    gt, found = map(read_mot, files(truth, result))
    scores = tracking_scores(gt, found, benchmark)
    assert vars(scores) == pytest.approx(official(tmp_path, benchmark))
    removed = category in (2, 7, 8, 12) or (category == 6 and benchmark == "MOT20")
    assert scores.false_positives == (0 if removed or category == 1 else FRAMES)
    # Rows that are not scored may be left out before.
    assert tracking_scores(gt[gt.confidence > 0], found, benchmark) == scores


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("benchmark", ["MOT15", "MOT17", "MOT20"])
def test_scores_random_scenes_are_those_of_trackeval(tmp_path, files, benchmark, seed):
    random = np.random.default_rng(seed)
    truth, result = [], []
    for person in range(1, 16):
        category = 1 if person < 6 else random.integers(1, 14)
        x, y = random.uniform(-20, 300), random.uniform(0, 200)
        ignored = random.random() < 0.3
        end = "-1,-1,-1" if benchmark == "MOT15" else f"{category},{random.random():.3f}"
        for frame in range(1, FRAMES + 1):
            truth.append(
                f"{frame},{person},{x + 3 * frame:.3f},{y:.3f},40,90,{int(not ignored)},{end}"
            )
            if random.random() < 0.8:
                dx, dy, dw, dh = random.normal(0, 6, 4)
                identity = person + 100 * int(random.random() < 0.2)
                box = f"{x + 3 * frame + dx:.3f},{y + dy:.3f},{40 + dw:.3f},{90 + dh:.3f}"
                result.append(f"{frame},{identity},{box},0.4,-1,-1,-1")
    gt, found = map(read_mot, files(truth, result))
    assert vars(tracking_scores(gt, found, benchmark)) == pytest.approx(
        official(tmp_path, benchmark)
    )


@pytest.mark.parametrize(
    ("truth", "result"),
    [((1, 2), (1, 1)), ((1, 1), (1, 2)), ((1, 2), (-1, -1)), ((-1, -1), (1, 2)), ((1, 2), (0, 0))],
)
def test_scores_identity_twice_in_frame_raises(files, truth, result):
    rows = [[*lines(a, 10, "1"), *lines(b, 300, "1")] for a, b in (truth, result)]
    gt, found = map(read_mot, files(*rows))
    with pytest.raises(InputError, match=r"unique in each frame, got .* 2 times in frame 1"):
        tracking_scores(gt, found)


def test_scores_identity_of_distractor_in_same_frame_raises(files):
    truth = [*lines(1, 10, "1,1,1"), *lines(1, 300, "0,7,1")]
    gt, found = map(read_mot, files(truth, lines(1, 10, "1,-1,-1,-1")))
    with pytest.raises(InputError, match="unique in each frame"):
        tracking_scores(gt, found)


def test_scores_tracks_of_cars_raise(files):
    result = [*lines(1, 10, "1,1,1"), *lines(2, 300, "1,3,1")]
    gt, found = map(read_mot, files(lines(1, 10, "1,1,1"), result))
    with pytest.raises(InputError, match=r"`tracks` must be pedestrians .* got 10 boxes"):
        tracking_scores(gt, found)


def test_scores_unknown_benchmark_raises(files):
    gt, found = map(read_mot, files(lines(1, 10, "1,1,1"), lines(1, 10, "1,-1,-1,-1")))
    with pytest.raises(InputError, match="`benchmark` must be one of MOT15"):
        tracking_scores(gt, found, "KITTI")


def test_scores_without_scored_person_raise(files):
    gt, found = map(read_mot, files(lines(1, 10, "1,3,1"), lines(1, 10, "1,-1,-1,-1")))
    with pytest.raises(InputError, match="`truth` must be at least one box"):
        tracking_scores(gt, found)


@pytest.mark.parametrize(
    ("ending", "others"),
    [
        ("1,3,1", True),  # nine columns: class and visibility
        ("0.9,3", True),  # eight
        ("1,3,1,0", False),  # ten, as in MOT15: three coordinates
        ("1,-1,-1,-1", False),
        ("1,-1,-1", False),  # a class of −1 means none
        ("0.9", False),
    ],
)
def test_read_mot_number_of_columns_determines_class(tmp_path, ending, others):
    (tmp_path / "gt.txt").write_text("\n".join(lines(1, 10, ending)))
    boxes = read_mot(tmp_path / "gt.txt")
    assert len(boxes) == (0 if others else FRAMES)
    assert (boxes.others is not None) == others


@pytest.mark.parametrize("category", ["0", "14", "1.5", "-2"])
def test_read_mot_unknown_class_raises(tmp_path, category):
    (tmp_path / "gt.txt").write_text("1,1,1,1,5,5,1,1,1\n" + f"2,1,1,1,5,5,1,{category},1\n")
    message = rf", line 2` must be .*class from 1 to 13, got '2,1,1,1,5,5,1,{category},1'"
    with pytest.raises(InputError, match=message):
        read_mot(tmp_path / "gt.txt")


def test_write_mot_cars_are_excluded(tmp_path):
    (tmp_path / "gt.txt").write_text("1,1,1,1,5,5,1,1,1\n1,2,1,1,5,5,1,3,1\n")
    write_mot(read_mot(tmp_path / "gt.txt"), tmp_path / "t.txt")
    assert read_mot(tmp_path / "t.txt").identity.tolist() == [1]


@pytest.fixture
def frames(tmp_path):
    (tmp_path / "frames").mkdir()
    for frame in range(1, FRAMES + 1):
        Image.new("RGB", (400, 120)).save(tmp_path / f"frames/{frame}.jpg")
    return tmp_path / "frames"


def test_cut_tracklets_cuts_persons_not_cars(tmp_path, frames):
    rows = [*lines(1, 10, "1,1,1"), *lines(2, 100, "1,3,1"), *lines(3, 200, "1,7,1")]
    (tmp_path / "gt.txt").write_text("\n".join(rows))
    cut = data.cut_tracklets(frames, tmp_path / "gt.txt", tmp_path / "cut")
    assert set(cut.identity.tolist()) == {1}
    assert len(cut) == len(list((tmp_path / "cut").iterdir())) == FRAMES
    (tmp_path / "cars.txt").write_text("\n".join(lines(2, 100, "1,3,1")))
    with pytest.raises(InputError, match="must have boxes with identities"):
        data.cut_tracklets(frames, tmp_path / "cars.txt", tmp_path / "cars")


def test_cut_tracklets_identity_twice_in_frame_raises(tmp_path, frames):
    rows = [*lines(1, 10, "1,1,1"), *lines(1, 200, "1,1,1")]
    (tmp_path / "gt.txt").write_text("\n".join(rows))
    with pytest.raises(InputError, match="got 1 2 times in frame 1"):
        data.cut_tracklets(frames, tmp_path / "gt.txt", tmp_path / "cut")
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    ("folder", "flags", "removed"),
    [
        ("MOT20-01", (), True),
        ("MOT17-02", (), False),
        ("MOT17-02", ("--benchmark=MOT20",), True),
        ("MOT20-01", ("--benchmark=MOT17",), False),
    ],
)
def test_track_benchmark_is_read_from_flag_or_folder(tmp_path, frames, folder, flags, removed):
    truth = tmp_path / folder / "gt.txt"
    truth.parent.mkdir()
    truth.write_text("\n".join([*lines(1, 10, "1,1,1"), *lines(2, 300, "0,6,1")]))
    detections = [*lines(-1, 10, "1,-1,-1,-1"), *lines(-1, 300, "1,-1,-1,-1")]
    (tmp_path / "det.txt").write_text("\n".join(detections))
    code, out, err = within(
        *("track.py", "--source=frames", "--detections=det.txt", "--noappearance", "--n_init=1"),
        *(f"--ground_truth={truth}", *flags),
        cwd=tmp_path,
    )
    assert code == 0, err
    assert f"false positives {0 if removed else FRAMES:>6}" in out


def test_boxes_selected_rows_keep_other_classes(tmp_path):
    (tmp_path / "gt.txt").write_text("1,1,1,1,5,5,1,1,1\n2,1,1,1,5,5,0,1,1\n1,2,1,1,5,5,0,7,1\n")
    boxes = read_mot(tmp_path / "gt.txt")
    scored = boxes[boxes.confidence > 0]
    assert isinstance(scored, Boxes)
    assert scored.frame.tolist() == [1]
    assert scored.others.category.tolist() == [7]
    assert scored.category is None
