"""Tracks of streams: order and numbers, windows, threads, watch, audit log and retention."""

import json
import os
import threading
import time
from functools import partial
from itertools import islice

import numpy as np
import pytest
from conftest import match_within

from keras_reid import data, detection, gallery, tracking
from keras_reid.data.mot import Boxes, read_mot
from keras_reid.detection.loading import PACKAGE
from keras_reid.detection.windows import detect_in_windows
from keras_reid.errors import InputError
from keras_reid.tracking.ahead import ahead
from keras_reid.tracking.pipeline import FrameTracks, every_for, tracks_for


def walk(frame, person=0):
    return np.array([10.0 + 100 * person + 2 * frame, 50 + person, 20, 60])


def collected(tracks, seen):
    """Return the boxes that each update returns, for lists of boxes by frame."""
    parts = [
        tracks.update(frame, np.reshape(boxes, (-1, 4)), np.full(len(boxes), 0.8))
        for frame, boxes in seen.items()
    ]
    return [*parts, tracks.finish()]


def test_online_tracks_equal_tracks_of_whole_video():
    random = np.random.default_rng(0)
    seen = {
        frame: [walk(frame, p) for p in range(4) if random.random() > 0.3]
        + [random.uniform((0, 200, 10, 20), (500, 400, 30, 60))]
        for frame in range(1, 60)
    }
    tracks = tracks_for(1, appearance=False)
    rows = [one for part in collected(tracks, seen) for one in part]
    got = [(one.frame, one.track, *one.box) for one in rows if one.row is not None]
    number = np.concatenate([np.full(len(boxes), frame) for frame, boxes in seen.items()])
    box = np.concatenate([np.reshape(boxes, (-1, 4)) for boxes in seen.values()])
    whole = tracking.track(Boxes(number, np.full(len(box), -1), box, np.ones(len(box))))
    expected = [(f, i, *b) for f, i, b in zip(whole.frame, whole.identity, whole.box, strict=True)]
    assert sorted(got) == sorted(expected)
    frames = [one.frame for one in rows]
    assert frames == sorted(frames)
    assert len({(one.frame, one.track) for one in rows}) == len(rows)


def test_online_tracks_boxes_between_detections_are_interpolated():
    tracks = tracks_for(4, appearance=False)
    parts = collected(tracks, {frame: [walk(frame)] for frame in (1, 5, 9, 13)})
    rows = [one for part in parts for one in part]
    assert [one.frame for one in rows] == [*range(1, 14)]
    for one in rows:
        np.testing.assert_allclose(one.box, walk(one.frame))
        assert (one.row is None) == (one.frame % 4 != 1)
        assert one.confidence == pytest.approx(0.8)


@pytest.mark.parametrize(("gap", "filled"), [(10, True), (11, False)])
def test_online_tracks_missed_frames_get_boxes_up_to_max_gap(gap, filled):
    seen = {frame: [walk(frame, 1)] for frame in range(1, 30)}
    for frame in [*range(1, 6), *range(5 + gap, 30)]:
        seen[frame].append(walk(frame))
    tracks = tracks_for(1, appearance=False)
    rows = [one for part in collected(tracks, seen) for one in part]
    frames = [one.frame for one in rows]
    assert frames == sorted(frames)  # though the second person is always there
    first = [one.frame for one in rows if one.box[0] < 100]
    assert len({one.track for one in rows}) == 2
    assert (first == [*range(1, 30)]) == filled


def test_online_tracks_boxes_are_returned_as_soon_as_complete():
    tracks = tracks_for(1, appearance=False)
    parts = collected(tracks, {frame: [walk(frame)] for frame in range(1, 8)})
    counts = [[one.frame for one in part] for part in parts]
    assert counts == [[], [], [1], [2], [3], [4], [5], [6, 7]]


def test_tracks_for_spans_frames():
    assert [tracks_for(n).tracker.n_init for n in (1, 2, 3, 5)] == [3, 2, 2, 2]
    assert [tracks_for(n).tracker.max_age for n in (1, 2, 3, 40)] == [30, 15, 10, 0]
    assert tracks_for(5, n_init=1).tracker.n_init == 1
    assert [every_for(rate) for rate in (None, 2.0, 10.0, 30.0)] == [1, 1, 3, 10]


def test_tracker_unconfirmed_track_without_overlap_is_matched_by_appearance():
    for same in (True, False):
        tracker = tracking.Tracker(n_init=2)
        tracker.update([[100.0, 50, 20, 60]], [[1.0, 0]])
        active = tracker.update([[117.0, 50, 20, 60]], [[1.0, 0] if same else [0, 1.0]])
        assert len(active) == same


class Whites:
    """Network that detects the white box of a square, and counts squares."""

    def __init__(self):
        self.squares = 0

    def __call__(self, squares):
        boxes, scores = np.zeros((len(squares), 1, 4)), np.zeros((len(squares), 1))
        self.squares += len(squares)
        for i, square in enumerate(squares):
            rows, columns = np.nonzero(square[..., 0] > 127)
            if len(rows):
                ends = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
                boxes[i, 0], scores[i, 0] = np.array(ends) / len(square), 0.9
        return boxes, scores


def scene(x, y, w=12, h=40):
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[y : y + h, x : x + w] = 255
    return frame


def test_scene_windows_follow_person_and_scan_all_windows():
    network = Whites()
    detector = tracking.in_scene(partial(detect_in_windows, network))
    detector(scene(40, 30))
    assert network.squares == 16  # all windows, and the whole frame
    for step in range(1, 30):
        network.squares = 0
        boxes, _ = detector(scene(40 + 7 * step, 30 + 2 * step))
        np.testing.assert_allclose(boxes, [(40 + 7 * step, 30 + 2 * step, 12, 40)], atol=1.5)
        assert network.squares <= 4
    # Another person in another place is detected when the turn comes to the window.
    assert any(len(detector(scene(20, 140))[0]) for _ in range(16))


def test_scene_windows_large_person_needs_no_window():
    network = Whites()
    detector = tracking.in_scene(partial(detect_in_windows, network))
    detector(scene(100, 10, 60, 180))
    network.squares = 0
    boxes, _ = detector(scene(102, 10, 60, 180))
    np.testing.assert_allclose(boxes, [(102, 10, 60, 180)], atol=2)
    assert network.squares == 2  # one window in turn, and the whole frame


def test_scene_windows_frame_of_one_pixel_has_no_window():
    detector = tracking.in_scene(partial(detect_in_windows, Whites()))
    for frame in (scene(40, 30), np.zeros((1, 1, 3), np.uint8)):
        boxes, _ = detector(frame)
    assert len(boxes) == 0


def test_in_scene_detector_without_windows_is_unchanged():
    def detector(frame):
        return np.zeros((0, 4)), np.zeros(0)

    assert tracking.in_scene(detector) is detector


def test_ahead_is_bounded_and_closes_its_items():
    made, closed = [], threading.Event()

    def items():
        try:
            for number in range(1000):
                made.append(number)
                yield number
        finally:
            closed.set()

    numbers = ahead(items(), 3)
    assert next(numbers) == 0
    time.sleep(0.2)
    assert len(made) <= 6
    numbers.close()
    assert closed.wait(5)
    assert len(made) <= 7


def test_ahead_error_follows_items_before_it():
    def items():
        yield 1
        raise InputError("broken")

    numbers = ahead(items(), 3)
    assert next(numbers) == 1
    with pytest.raises(InputError, match="broken"):
        next(numbers)


def test_ahead_slow_consumer_of_stream_gets_newest_items():
    numbers = ahead(iter(range(100)), 4, drop_oldest=True)
    assert next(numbers) in range(100)
    time.sleep(0.5)
    rest = list(numbers)
    assert rest == sorted(rest)
    assert len(rest) <= 5
    assert 99 in rest


def test_ahead_stopped_ends_while_waiting():
    release = threading.Event()

    def items():
        yield 1
        release.wait(10)

    numbers = ahead(items(), 2, stopped=release.is_set)
    assert next(numbers) == 1
    release.set()
    assert list(numbers) == []


ANNA, BERT, CARL = np.eye(3)


@pytest.fixture
def people():
    with gallery.open("memory:") as opened:
        opened.enrol(np.stack([ANNA, BERT]), ["anna", "bert"], model_fingerprint="m")
        opened.calibration = match_within(0.3)
        yield opened


def watched(people, looks, crops=None):
    """Return the events for one embedding or None of each frame and track."""
    tracks, events = tracks_for(1, max_age=2), []
    watch = tracking.Watch(people, "door", model_fingerprint="m", begin=1000.0, crops=crops)
    image = np.zeros((200, 400, 3), np.uint8)
    for frame, row in enumerate(looks, start=1):
        here = [(walk(frame, p), look) for p, look in enumerate(row) if look is not None]
        boxes = np.reshape([box for box, _ in here], (-1, 4))
        looks_here = np.reshape([look for _, look in here], (len(here), -1))
        complete = tracks.update(frame, boxes, np.ones(len(here)), looks_here)
        numbers = frame, frame / 10, image, boxes, np.ones(len(here)), looks_here
        step = FrameTracks(*numbers, complete, tracks.active, tracks.ended)
        if crops:
            crops.add(step)
        events += watch.update(step)
    step = FrameTracks(*numbers, tracks.finish(), [], tracks.ended)
    return [*events, *watch.update(step)]


def test_watch_enrolled_person_appears_and_leaves(people):
    looks = [(ANNA, CARL)] * 6 + [(None, CARL)] * 10
    events = watched(people, looks)
    assert [(one.person, one.event) for one in events] == [("anna", "appears"), ("anna", "leaves")]
    first, last = events
    assert first.time == "1970-01-01T00:16:40.300+00:00"  # the third detection confirms
    assert last.time == "1970-01-01T00:16:40.600+00:00"
    assert first.camera == "door"
    assert first.probability > 0.9
    assert "door: anna appears (> 99 %), track 1" in str(first)
    assert people.count() == 2


def test_watch_person_of_two_tracks_appears_once(people):
    events = watched(people, [(BERT, BERT)] * 5 + [(None, BERT)] * 8)
    assert [one.event for one in events] == ["appears", "leaves"]
    assert events[1].time.endswith("16:41.300+00:00")


def test_watch_crops_are_named(people, tmp_path):
    crops = tracking.BestCrops(tmp_path / "crops")
    events = watched(people, [(ANNA, None)] * 8, crops)
    assert [one.event for one in events] == ["appears", "leaves"]
    for one in events:
        assert one.crop.startswith(str(tmp_path / "crops/000001/"))
    assert os.path.exists(events[1].crop)


def test_watch_other_model_or_empty_gallery_raises(people):
    with pytest.raises(InputError, match="model"):
        tracking.Watch(people, "door", model_fingerprint="other")
    with gallery.open("memory:") as empty:
        empty.calibration = match_within(0.3)
        with pytest.raises(InputError, match="The gallery is empty"):
            tracking.Watch(empty, "door", model_fingerprint="m")


def test_best_crops_keep_largest_of_each_track(tmp_path):
    crops = tracking.BestCrops(tmp_path / "crops", count=2)
    tracks = tracks_for(1, appearance=False, n_init=1)
    for frame in range(1, 100):
        box = np.array([[10.0, 10, 20 + frame / 2, 40 + frame]])
        tracks.update(frame, box, np.ones(1))
        image = np.full((200, 200, 3), frame, np.uint8)
        crops.add(
            FrameTracks(frame, 0.0, image, box, np.ones(1), None, [], tracks.active, tracks.ended)
        )
    names = sorted(int(path.stem) for path in (tmp_path / "crops/000001").iterdir())
    assert len(names) == 2
    assert names[0] >= 70
    assert names[0] // 10 < names[1] // 10


def test_audit_log_appends_private_lines(tmp_path):
    log = tracking.AuditLog(tmp_path / "log.jsonl")
    log.append(event="appears", person="anna")
    tracking.AuditLog(tmp_path / "log.jsonl").append(event="leaves", person="Müller")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text("utf-8").splitlines()]
    assert [line["event"] for line in lines] == ["appears", "leaves"]
    assert lines[1]["person"] == "Müller"
    if os.name == "posix":
        assert (tmp_path / "log.jsonl").stat().st_mode & 0o777 == 0o600


def test_retention_removes_old_lines_and_crops_only(tmp_path, monkeypatch):
    log = tracking.AuditLog(tmp_path / "log.jsonl")
    log.append(event="appears", person="old")
    (tmp_path / "log.jsonl").write_text(
        (tmp_path / "log.jsonl").read_text() + "not JSON\n", "utf-8"
    )
    crop = tmp_path / "crops/run/000001/00000012.jpg"
    crop.parent.mkdir(parents=True)
    for path in (crop, crop.with_name("photo.jpg"), crop.with_name("00000013.jpg")):
        path.touch()
    now = time.time()
    os.utime(crop, (now - 31 * 86400, now - 31 * 86400))
    os.utime(crop.with_name("photo.jpg"), (now - 31 * 86400, now - 31 * 86400))
    retention = tracking.Retention("30d", log, tmp_path / "crops")
    retention.apply()
    assert sorted(path.name for path in crop.parent.iterdir()) == ["00000013.jpg", "photo.jpg"]
    assert "old" in (tmp_path / "log.jsonl").read_text()
    monkeypatch.setattr("keras_reid.tracking.audit.time.time", lambda: now + 31 * 86400)
    retention.apply()
    text = (tmp_path / "log.jsonl").read_text()
    assert "old" not in text
    assert "not JSON" in text  # kept, because its age is unknown
    assert '"removed_crops": 1, "removed_lines": 2' in text
    assert [path.name for path in crop.parent.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("period", ["", "30", "d", "0d", "-1d", "30 days", "1y"])
def test_retention_invalid_period_raises(period):
    with pytest.raises(InputError, match="must be a number and h, d or w"):
        tracking.check_retention(period)
    assert [tracking.check_retention(text) for text in ("12h", "2w")] == [43200, 1209600]


@pytest.mark.slow
@pytest.mark.real
def test_follow_real_video_with_detector_on_third_frames_finds_most_persons(real_data):
    pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")
    pytest.importorskip("trackeval", reason="TrackEval, extra tracking, is not installed")
    pytest.importorskip(PACKAGE, reason="ssdlite, extra tracking, is not installed")
    frames = 25
    truth = read_mot(real_data / "data/pets09-s2l1/gt/gt.txt")
    truth = truth[(truth.frame <= frames) & (truth.confidence > 0)]

    class First(data.Video):
        def timed(self):
            return islice(super().timed(), frames)

    video = First(real_data / "data/pets09-s2l1/vtest.avi")
    detector = tracking.in_scene(detection.detector_of())
    tracks = tracks_for(3, appearance=False)
    steps = tracking.follow(video, lambda _, image: detector(image), tracks)
    rows = [one for step in steps for one in step.complete]
    frame, track, box, confidence, _ = zip(*rows, strict=True)
    columns = map(np.array, (frame, track, box, confidence))
    scores = tracking.tracking_scores(truth, Boxes(*columns))
    assert scores.hota > 0.35
    assert {*range(1, frames + 1)} == {*frame}
