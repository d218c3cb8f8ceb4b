"""The online tracker: bounded memory, active and finished tracks, values that are not finite."""

import logging
import tracemalloc

import numpy as np
import pytest
from conftest import match_within
from PIL import Image
from processes import within

from keras_reid import data, detection, gallery, tracking
from keras_reid.cli import common
from keras_reid.data.mot import Boxes
from keras_reid.errors import InputError

STAYS = np.array([100.0, 100, 50, 120])


def stream(frames, size=16, seed=0):
    """Detections of one who stays, one who comes and goes, and three false alarms per frame."""
    random = np.random.default_rng(seed)
    for frame in range(frames):
        place = random.uniform((0, 0, 20, 60), (1800, 900, 60, 160), (3, 4))
        visit = np.array([500.0 + 2 * (frame % 12), 400, 50, 120])
        looks = random.normal(size=(5, size))
        looks[:2] = 0
        looks[0, 0] = looks[1, 1 + frame // 12 % (size - 1)] = 1
        boxes = np.concatenate([[STAYS, visit], place])
        kept = slice(None) if frame % 12 < 8 else slice(0, 1)
        yield boxes[kept], looks[kept]


def test_tracker_long_stream_memory_is_constant():
    tracker = tracking.Tracker(history=5, budget=10, max_age=5)
    for boxes, looks in stream(100, 64):
        tracker.update(boxes, looks)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for boxes, looks in stream(400, 64, seed=1):
        (first, *_) = tracker.update(boxes, looks)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(tracker.ended) == 5
    assert len(first.rows) == len(first.embeddings) == 10  # of one who was there all the time
    assert all(track.confirmed for track in tracker.ended)
    assert grown < 300_000  # bytes; 1,200 tracks of false alarms would take more than 2,000,000


def test_tracker_update_returns_active_tracks_of_frame():
    tracker = tracking.Tracker(appearance=False, n_init=3)
    for frame in range(6):
        boxes = [[10 + frame, 10, 20, 40]]
        if frame in (0, 1, 2, 4, 5):
            boxes.insert(0, [200 - frame, 10, 20, 40])
        active = tracker.update(np.array(boxes, float))
        if frame < 2:
            assert active == []  # not confirmed
            continue
        right = [track for track in active if track.box[0] > 100]
        left = [track for track in active if track.box[0] < 100]
        assert (len(left), len(right)) == (1, int(frame != 3))
        assert left[0].detection == len(boxes) - 1
        np.testing.assert_array_equal(left[0].box, boxes[-1])
        assert [track.number for track in active] == sorted(track.number for track in active)
    assert tracker.update(np.zeros((0, 4))) == []


def test_tracker_finished_returns_each_track_once():
    tracker = tracking.Tracker(max_age=2, history=100)
    finished, active = [], set()
    for boxes, looks in stream(120):
        active |= {track.number for track in tracker.update(boxes, looks)}
        finished += tracker.finished()
    assert len(finished) == 10  # one for each visit
    finished += tracker.finish()
    numbers = [track.number for track in finished]
    assert sorted(numbers) == sorted(active)
    assert len(set(numbers)) == len(numbers) == 11
    assert tracker.finish() == tracker.finished() == []


def test_tracker_dropped_tracks_are_logged(caplog):
    tracker = tracking.Tracker(max_age=1, history=2)
    with caplog.at_level(logging.WARNING, "absl"):
        for boxes, looks in stream(60):
            tracker.update(boxes, looks)
    assert len(tracker.finished()) == 2
    assert caplog.text.count("drops the oldest of more than 2 ended tracks") == 1


def test_tracker_finish_returns_all_active_tracks_beyond_history():
    tracker = tracking.Tracker(appearance=False, history=2, n_init=1)
    tracker.update(STAYS + np.outer(np.arange(5), (200, 0, 0, 0)))
    assert [track.number for track in tracker.finish()] == [1, 2, 3, 4, 5]
    assert tracker.tracks == []


def test_track_rows_before_confirmation_and_of_long_tracks_are_kept():
    frames = np.repeat(np.arange(1, 301), 2)
    box = np.tile([[10.0, 10, 20, 40], [200, 10, 20, 40]], (300, 1))
    detections = Boxes(frames, np.full(600, -1), box, np.ones(600))
    tracks = tracking.track(detections, budget=2, n_init=5)
    assert len(tracks) == 600
    assert tracks.identity.tolist() == [1, 2] * 300


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["boxes", "embeddings"])
def test_tracker_value_not_finite_raises(value, column):
    tracker = tracking.Tracker()
    values = {"boxes": np.array([STAYS, STAYS + 300]), "embeddings": np.eye(2)}
    tracker.update(**values)
    broken = {**values, column: values[column].copy()}
    broken[column][1, 1] = value
    with pytest.raises(
        InputError, match=f"`{column}` must be finite, got {value} in frame 2, row 1"
    ):
        tracker.update(**broken)
    tracker.update(**values)  # as if the broken frame had not been
    assert len(tracker.update(**values)) == 2


@pytest.mark.parametrize("shape", [(4,), (2, 5), (4, 2), (8, 1), (1, 2, 4)], ids=str)
def test_tracker_boxes_of_other_shape_raise(shape):
    tracker = tracking.Tracker(appearance=False)
    with pytest.raises(InputError) as raised:
        tracker.update(np.ones(shape))
    assert f"`boxes` must be of shape (n, 4), got {shape}." in str(raised.value)
    assert tracker.tracks == []


@pytest.mark.parametrize("empty", [(0,), (0, 4), (0, 5)], ids=str)
def test_tracker_empty_frames_of_any_shape_keep_tracks(empty):
    tracker = tracking.Tracker(n_init=1)
    for _ in range(2):
        tracker.update(np.zeros(empty), np.zeros(empty))
        (track,) = tracker.update([STAYS], [[1.0, 0, 0]])
        assert track.number == 1


def test_tracker_embeddings_of_other_shape_raise():
    tracker = tracking.Tracker(n_init=1, max_age=0)
    with pytest.raises(InputError, match=r"`embeddings` must be of shape \(n, d\), got \(1,\)"):
        tracker.update([STAYS], np.ones(1))
    tracker.update([STAYS], np.eye(1, 3))
    tracker.update([], [])  # which ends the track
    with pytest.raises(InputError, match=r"must be of shape \(n, 3\), got \(1, 2\)"):
        tracker.update([STAYS], np.eye(1, 2))
    assert len(tracker.update([STAYS], np.eye(1, 3))) == 1


def test_track_embeddings_of_one_axis_raise():
    detections = Boxes(np.array([5, 9]), np.full(2, -1), np.array([STAYS] * 2), np.ones(2))
    with pytest.raises(InputError, match="`embeddings` must be of shape"):
        tracking.track(detections, np.ones(2))


@pytest.mark.parametrize("column", ["boxes", "embeddings"])
def test_track_value_not_finite_raises(column):
    frames = np.array([5, 5, 9])
    values = {"boxes": np.array([STAYS, STAYS + 300, STAYS]), "embeddings": np.ones((3, 4))}
    values[column][2, 0] = np.nan
    detections = Boxes(frames, np.full(3, -1), values["boxes"], np.ones(3))
    with pytest.raises(InputError, match=f"`{column}` must be finite, got nan in frame 9, row 2"):
        tracking.track(detections, values["embeddings"])


def test_identify_tracks_embedding_not_finite_raises():
    looks = np.ones((2, 4), np.float32)
    looks[1, 2] = np.nan
    tracks = Boxes(np.array([3, 4]), np.ones(2, int), np.array([STAYS, STAYS]), np.ones(2))
    with (
        gallery.open("memory:") as people,
        pytest.raises(InputError, match="`embeddings` must be finite, got nan in frame 4, row 1"),
    ):
        tracking.identify_tracks(
            tracks, looks, people, "a", "v", model_fingerprint="m", calibration=match_within(0.5)
        )


@pytest.fixture
def scene(tmp_path):
    (tmp_path / "frames").mkdir()
    for frame in range(1, 6):
        Image.new("RGB", (60, 60), (frame,) * 3).save(tmp_path / f"frames/{frame}.png")
    lines = [f"{frame},-1,5,5,10,30,1" for frame in range(1, 6)]
    (tmp_path / "det.txt").write_text("\n".join(lines))
    return tmp_path


def test_track_command_model_without_finite_embedding_raises(scene, monkeypatch):
    def embed(images):
        means = images.mean(axis=(1, 2))
        return np.where(means == 4, np.nan, means)  # a diverged model, in the fourth frame

    monkeypatch.setattr(common.ModelOptions, "pixel_embedder", lambda self: (embed, (16, 8)))
    flags = ("--source=frames", "--detections=det.txt", "--out=t.txt")
    code, _, err = within("track.py", *flags, cwd=scene)
    assert code == 1
    assert "error: `embeddings` must be finite, got nan in frame 4, row 0" in err
    assert not (scene / "t.txt").exists()


def test_track_command_detector_box_not_finite_raises(scene, monkeypatch):
    def detect(frame):
        return np.array([[5.0, 5, 10, np.nan if frame[0, 0, 0] == 3 else 30]]), np.ones(1)

    monkeypatch.setattr(detection, "detector_of", lambda *names: detect, raising=False)
    flags = ("--source=frames", "--noappearance", "--out=t.txt")
    code, _, err = within("track.py", *flags, cwd=scene)
    assert code == 1
    assert "error: `boxes` must be finite, got nan in frame 3, row 0" in err


def test_detections_of_video_object_equal_detections_of_frames(scene):
    video = data.Video(scene / "frames")
    seen = tracking.detect_persons(video, lambda frame: (frame[:1, 0, :1] + np.eye(1, 4), [1]))
    assert seen.frame.tolist() == [1, 2, 3, 4, 5]
