"""Tracking: MOT files, motion, assignment, scores, and identities across cameras."""

import json
from functools import partial

import keras
import numpy as np
import pytest
from conftest import match_within
from PIL import Image
from processes import said

from keras_reid import data, gallery, inference, models, tracking
from keras_reid.data import synthetic
from keras_reid.data.mot import Boxes, read_mot, write_mot
from keras_reid.detection.suppression import overlaps
from keras_reid.errors import InputError
from keras_reid.pixels import resize
from keras_reid.tracking import cameras
from keras_reid.tracking.motion import GATE, Motion, centered
from keras_reid.training.runs import Run

MATCH = {"calibration": match_within(0.5)}


def boxes(rows):
    """(frame, identity, x, y) of boxes of 20 by 40 pixels."""
    frame, identity, x, y = np.array(rows, float).T
    size = np.ones((len(rows), 1)) * (20, 40)
    corners = np.concatenate([np.stack([x, y], axis=1), size], axis=1)
    order = np.argsort(frame, kind="stable")
    columns = (frame.astype(int), identity.astype(int), corners, np.ones(len(rows)))
    return Boxes(*columns)[order]


def crossing(hidden=()):
    """Two persons who walk through each other, and are not seen in the hidden frames."""
    rows = []
    for frame in range(1, 41):
        if frame not in hidden:
            rows.append((frame, 1, 10 + 5 * frame, 50))
            rows.append((frame, 2, 215 - 5 * frame, 50))
    return boxes(rows)


def looks_of(found, noise=0.02):
    """Return an embedding for each box that separates the identities."""
    rng = np.random.default_rng(0)
    return np.eye(10)[found.identity] + noise * rng.normal(size=(len(found), 10))


# --- Files


def test_write_mot_then_read_mot_restores_boxes(tmp_path):
    found = crossing()
    write_mot(found, tmp_path / "t.txt")
    again = read_mot(tmp_path / "t.txt")
    for name in ("frame", "identity", "box", "confidence"):
        np.testing.assert_allclose(getattr(again, name), getattr(found, name))
    first = (tmp_path / "t.txt").read_text().splitlines()[0]
    assert first == "1,1,16.00,51.00,20.00,40.00,1,-1,-1,-1"  # counted from 1
    with pytest.raises(InputError, match="must be a new path"):
        write_mot(found, tmp_path / "t.txt")
    (tmp_path / "d.txt").write_text("\n2,-1,5,6,7,8\n1,-1,1,1,3,4,0.25,0,0,0\n")
    short = read_mot(tmp_path / "d.txt")
    assert short.frame.tolist() == [1, 2]
    assert short.confidence.tolist() == [0.25, 1]


@pytest.mark.parametrize(
    "line", ["1,2,3", "0,1,1,1,5,5,1", "1,1,1,1,0,5,1", "a,1,1,1,5,5,1", "1,1,nan,1,5,5,1"]
)
def test_read_mot_invalid_line_raises_with_number(tmp_path, line):
    (tmp_path / "t.txt").write_text(f"1,1,1,1,5,5,1\n{line}\n")
    with pytest.raises(InputError, match="line 2` must be frame"):
        read_mot(tmp_path / "t.txt")
    with pytest.raises(InputError, match=r"none\.txt` must be a text file"):
        read_mot(tmp_path / "none.txt")


# --- Motion


def test_motion_filter_matches_kalman_equations():
    """Against x = (F P Fᵀ + Q), K = P Hᵀ S⁻¹ written out with explicit inverses."""
    rng = np.random.default_rng(0)
    motion = Motion.of(np.array([10.0, 20, 30, 60]))
    mean, p = motion.mean.copy(), motion.covariance.copy()
    f, h = np.eye(8), np.eye(4, 8)
    f[:4, 4:] = np.eye(4)
    for _ in range(6):
        box = np.array([10.0, 20, 30, 60]) + rng.normal(size=4)
        q = np.diag((mean[3] * np.array([1 / 20] * 4 + [1 / 160] * 4)) ** 2)
        mean, p = f @ mean, f @ p @ f.T + q
        motion = motion.predicted()
        np.testing.assert_allclose(motion.mean, mean)
        np.testing.assert_allclose(motion.covariance, p)
        s = h @ p @ h.T + np.eye(4) * (mean[3] / 20) ** 2
        apart = centered(box) - h @ mean
        expected = apart @ np.linalg.inv(s) @ apart
        assert motion.squared_mahalanobis(box[None])[0] == pytest.approx(expected)
        gain = p @ h.T @ np.linalg.inv(s)
        mean, p = mean + gain @ apart, (np.eye(8) - gain @ h) @ p
        motion = motion.corrected(box)
        np.testing.assert_allclose(motion.mean, mean)
        np.testing.assert_allclose(motion.covariance, p, atol=1e-9)


def test_motion_constant_velocity_is_predicted():
    motion = Motion.of(np.array([0.0, 0, 20, 40]))
    for frame in range(1, 20):
        motion = motion.predicted().corrected(np.array([4.0 * frame, 0, 20, 40]))
    np.testing.assert_allclose(motion.predicted().box, [80, 0, 20, 40], atol=1)
    assert motion.predicted().squared_mahalanobis(np.array([[80.0, 0, 20, 40]]))[0] < GATE
    assert motion.predicted().squared_mahalanobis(np.array([[140.0, 0, 20, 40]]))[0] > GATE


def test_overlaps_returns_intersection_over_union():
    a = np.array([[0.0, 0, 10, 10]])
    b = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [20, 20, 5, 5], [2, 2, 5, 5]])
    np.testing.assert_allclose(overlaps(a, b), [[1, 50 / 150, 0, 0.25]])


# --- Assignment


def purity(tracks, truth):
    """Return the number of identities of each track."""
    of = {
        (f, *b): i for f, b, i in zip(truth.frame, truth.box.tolist(), truth.identity, strict=True)
    }
    return [
        len({of[(f, *b)] for f, b in zip(part.frame, part.box.tolist(), strict=True)})
        for number in np.unique(tracks.identity)
        for part in [tracks[tracks.identity == number]]
    ]


def test_track_separate_persons_gives_two_tracks():
    found = boxes([(f, i, 100 * i + f, 50) for f in range(1, 20) for i in (1, 2)])
    for embeddings in (None, looks_of(found)):
        tracks = tracking.track(found, embeddings)
        assert len(tracks) == len(found)
        assert purity(tracks, found) == [1, 1]
        assert np.unique(tracks.identity).tolist() == [1, 2]


def test_track_embeddings_recover_identity_after_occlusion():
    """Persons are hidden while they change place and speed; motion alone starts new tracks."""
    hidden = range(15, 27)
    found = crossing(hidden)
    moved = found.box.copy()
    moved[found.frame >= 27, 0] += 12  # one hurried, one waited
    found = Boxes(found.frame, found.identity, moved, found.confidence)
    with_looks = tracking.track(found, looks_of(found))
    assert purity(with_looks, found) == [1, 1]
    assert len(np.unique(with_looks.identity)) == 2
    by_motion = tracking.track(found)
    assert len(np.unique(by_motion.identity)) > 2 or purity(by_motion, found) != [1, 1]


def test_track_short_detection_is_dropped_and_long_gap_ends_track():
    found = boxes(
        [(5, 9, 400, 50), (6, 9, 400, 50), *((f, 1, 10 + f, 50) for f in range(1, 11))]
        + [(f, 1, 10 + f, 50) for f in range(40, 51)]
    )
    tracks = tracking.track(found, max_age=5)
    assert len(np.unique(tracks.identity)) == 2
    assert (tracks.box[:, 0] < 300).all()
    assert len(np.unique(tracking.track(found, looks_of(found), max_age=35).identity)) == 1
    assert len(tracking.track(found, n_init=30)) == 0
    late = boxes([(f, 1, 10 + f % 100, 50) for f in (*range(1, 9), *range(10**8, 10**8 + 8))])
    assert (
        len(np.unique(tracking.track(late).identity)) == 2
    )  # at once, without other persons between them


def test_track_other_person_after_gap_starts_new_track():
    found = boxes(
        [(f, 1, 10 + 2 * f, 50) for f in range(1, 11)]
        + [(f, 2, 10 + 2 * f, 50) for f in range(13, 23)]
    )
    tracks = tracking.track(found, looks_of(found))
    assert purity(tracks, found) == [1, 1]
    alike = looks_of(boxes([(f, 1, 0, 0) for f in found.frame]))
    assert purity(tracking.track(found, alike), found) == [2]


def test_track_flickering_detections_start_no_track():
    found = boxes([(f, 1, 100, 50) for f in range(1, 20, 2)])
    assert len(tracking.track(found)) == 0
    assert len(tracking.track(found, looks_of(found))) == 0
    assert len(tracking.track(found, n_init=1)) == len(found)


def test_tracker_update_empty_frames_is_accepted():
    tracker = tracking.Tracker(appearance=True)
    for _ in range(3):
        tracker.update(np.zeros((0, 4)), np.zeros((0, 8)))
    for frame in range(5):
        tracker.update(np.array([[frame, 0, 20, 40]]), np.ones((1, 8)))
    for _ in range(40):
        tracker.update(np.zeros((0, 4)), np.zeros((0, 8)))
    (only,) = tracker.finish()
    assert only.rows == [0, 1, 2, 3, 4]
    assert tracker.finish() == []


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: tracking.Tracker(max_cosine_distance=0), "`max_cosine_distance` must be in"),
        (lambda: tracking.Tracker(min_iou=1), "`min_iou` must be in"),
        (lambda: tracking.Tracker(motion_weight=2), "`motion_weight` must be in"),
        (lambda: tracking.Tracker(n_init=0), "at least 1"),
        (
            lambda: tracking.Tracker().update(np.ones((2, 4))),
            r"`embeddings` must be of shape \(2, …\), got \(0, 0\)",
        ),
        (
            lambda: tracking.Tracker().update(np.ones((2, 4)), np.ones((1, 3))),
            "Pass one row for each",
        ),
        (lambda: tracking.track(crossing()[::-1]), "`detections` must be sorted by frame"),
    ],
)
def test_tracker_invalid_arguments_raises(build, message):
    with pytest.raises(InputError, match=message):
        build()


# --- Scores


def test_tracking_scores_known_tracks_return_expected_values():
    pytest.importorskip("trackeval", reason="TrackEval, extra tracking, is not installed")
    truth = boxes([(f, i, 100 * i + f, 50) for f in range(1, 41) for i in (1, 2)])
    right = tracking.tracking_scores(truth, truth)
    assert (right.mota, right.idf1, right.hota, right.switches) == pytest.approx((1, 1, 1, 0))
    swapped = np.where(truth.frame <= 20, truth.identity, 3 - truth.identity)
    wrong = tracking.tracking_scores(
        truth, Boxes(truth.frame, swapped, truth.box, truth.confidence)
    )
    # Two switches in 80 boxes; each identity is right half of the time.
    assert (wrong.switches, wrong.boxes) == (2, 80)
    assert wrong.mota == pytest.approx(1 - 2 / 80)
    assert wrong.idf1 == pytest.approx(0.5)
    # Each box has its identity in half of the frames: A = 20 / (40 + 40 - 20).
    assert (wrong.assa, wrong.deta) == pytest.approx((1 / 3, 1))
    assert wrong.hota == pytest.approx((1 / 3) ** 0.5)
    nothing = tracking.tracking_scores(truth, truth[:0])
    assert (nothing.mota, nothing.idf1, nothing.misses) == (0, 0, 80)
    some = tracking.tracking_scores(truth, truth[truth.identity == 1])
    assert (some.misses, some.mota) == (40, pytest.approx(0.5))
    assert "MOTA" in str(some)
    with pytest.raises(InputError, match="`truth` must be at least one box"):
        tracking.tracking_scores(truth[:0], truth)


# --- Across cameras


def two_cameras():
    """Persons 1 and 2 in the first camera, 2 and 3 in the second."""
    return [
        boxes([(f, i, 100 * i + f, 50) for f in range(1, 8) for i in people])
        for people in ((1, 2), (2, 3))
    ]


def test_identify_tracks_same_person_in_two_cameras_shares_identity():
    with gallery.open("memory:") as people:
        named = []
        for camera, tracks in zip("ab", two_cameras(), strict=True):
            options = {"model_fingerprint": "m", **MATCH}
            found = tracking.identify_tracks(
                tracks, looks_of(tracks), people, camera, f"{camera}.avi", **options
            )
            named.append({one.track: one.identity for one in found})
            again = tracking.identify_tracks(
                tracks, looks_of(tracks), people, camera, f"{camera}.avi", **options
            )
            assert {one.track: one.identity for one in again} == named[-1]
        assert named[0] == {1: "person-1", 2: "person-2"}
        assert named[1] == {2: "person-2", 3: "person-3"}
        assert people.count() == 4
        hits = people.search(looks_of(two_cameras()[1])[:1].astype("float32"), 2)[0]
        assert {hit.camera for hit in hits} == {"a", "b"}
        assert {hit.image for hit in hits} == {"a@0/a.avi#2", "b@0/b.avi#2"}


def identified(people, tracks, camera="a", video="frames", **options):
    options = {"model_fingerprint": "m", **MATCH, **options}
    found = tracking.identify_tracks(tracks, looks_of(tracks), people, camera, video, **options)
    return {one.track: one.identity for one in found}


def test_identify_tracks_same_video_name_differs_by_camera_and_start():
    first, second = two_cameras()
    with gallery.open("memory:") as people:
        assert identified(people, first, "north") == {1: "person-1", 2: "person-2"}
        assert identified(people, second, "south") == {2: "person-2", 3: "person-3"}
        assert people.count() == 4
        assert identified(people, second, "north", start=60.0) == {2: "person-2", 3: "person-3"}
        assert people.count() == 6
        for again in range(2):  # no new person, the same names for each calibration
            limit = match_within(-1.0 if again else 0.5)
            assert identified(people, second, "south", calibration=limit) == {
                2: "person-2",
                3: "person-3",
            }
        assert people.count() == 6


def test_identify_tracks_conflicting_numbers_raises_and_adds_nothing():
    with gallery.open("memory:") as people:
        identified(people, two_cameras()[0])
        others = two_cameras()[1]
        moved = Boxes(others.frame, others.identity - 1, others.box, others.confidence)
        looks = looks_of(others)
        with pytest.raises(InputError, match=r"tracks 1, 2 of .* with other embeddings"):
            tracking.identify_tracks(
                moved, looks, people, "a", "frames", model_fingerprint="m", **MATCH
            )
        assert people.count() == 2


def test_reference_different_parts_are_distinct():
    parts = [("a", 0, "b/c", 1), ("a@0", 0, "b/c", 1), ("a", 0.5, "b/c", 1), ("a/b", 0, "c", 1)]
    parts += [("a", 0, "b/c#1", 1), ("a", 0, "b/c", 11), ("a@0/b", 0, "c", 1)]
    assert len({cameras.reference(*part) for part in parts}) == len(parts)


def test_identify_tracks_simultaneous_tracks_get_different_identities():
    tracks = boxes([(f, i, 100 * i + f, 50) for f in range(1, 8) for i in (1, 2)])
    later = Boxes(tracks.frame + 20, tracks.identity + 2, tracks.box, tracks.confidence)
    whole = Boxes(
        *(
            np.concatenate([getattr(t, n) for t in (tracks, later)])
            for n in ("frame", "identity", "box", "confidence")
        )
    )
    same = np.ones((len(whole), 4)) + 0.01 * np.random.default_rng(0).normal(size=(len(whole), 4))
    with gallery.open("memory:") as people:
        found = tracking.identify_tracks(
            whole, same, people, "a", "a.avi", model_fingerprint="m", calibration=match_within(1.0)
        )
    names = [one.identity for one in found]
    assert names[0] != names[1]
    assert set(names[2:]) == set(names[:2])


def test_identify_tracks_without_calibration_or_embeddings_raises():
    tracks = two_cameras()[0]
    with gallery.open("memory:") as people:
        with pytest.raises(InputError, match="must have a calibration"):
            tracking.identify_tracks(
                tracks, looks_of(tracks), people, "a", "v", model_fingerprint="m"
            )
        with pytest.raises(InputError, match=r"`embeddings` must be of shape .*, got \(1, 2\)"):
            tracking.identify_tracks(
                tracks, np.ones((1, 2)), people, "a", "v", model_fingerprint="m", **MATCH
            )


# --- Looks, and the command


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Write frames with two walking persons, their boxes, and a run."""
    root = tmp_path_factory.mktemp("scene")
    (root / "frames").mkdir()
    rows = []
    for frame in range(1, 13):
        image = np.full((100, 200, 3), 90, np.uint8)
        for person, x in ((0, 10 + 4 * frame), (1, 160 - 4 * frame)):
            image[20:84, x : x + 32] = synthetic.draw(person, 1, 0, size=(64, 32))
            rows.append(f"{frame},{person + 1},{x + 1},21,32,64,1,-1,-1,-1")
        Image.fromarray(image).save(root / f"frames/{frame:04d}.png")
    (root / "gt.txt").write_text("\n".join(rows) + "\n")
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 5, (32, 16), weights="none")
    people = np.stack([synthetic.draw(i, 1, 0, size=(32, 16)) for i in range(8)])
    for _ in range(10):
        model(people, training=True)
    run = Run(root / "run")
    run.start({"flip": False, "dataset": "synthetic", "data_dir": "drawn"})
    run.save_models([model])
    run.finish({})
    return root, model


def test_embed_boxes_matches_embedding_of_crops(scene):
    root, model = scene
    found = read_mot(root / "gt.txt")
    embed = inference.load(model)
    told = []
    got = tracking.embed_boxes(
        data.Video(root / "frames"),
        found,
        lambda images: embed([images]),
        (32, 16),
        batch_size=5,
        progress=lambda *at: told.append(at),
    )
    frame = list(data.Video(root / "frames"))[2]
    crop = frame[20:84, 22:54]
    expected = embed([resize(crop, (32, 16))[None]])[0]
    row = np.flatnonzero((found.frame == 3) & (found.identity == 1))[0]
    np.testing.assert_allclose(got[row], expected, atol=1e-5)
    assert told[-1] == (24, 24)
    beyond = Boxes(found.frame + 1, found.identity, found.box, found.confidence)
    with pytest.raises(InputError, match="in the 12 frames of the video, got a box in frame 13"):
        tracking.embed_boxes(data.Video(root / "frames"), beyond, lambda x: embed([x]), (32, 16))


track = partial(said, "track.py")
SEEN = ("--source=frames", "--detections=gt.txt", "--run=run")


def test_track_command_writes_tracks_images_and_scores(scene):
    root, _ = scene
    scored = True
    try:
        import trackeval  # noqa: F401
    except ImportError:
        scored = False
    arguments = ["--out=tracks.txt", "--annotated=drawn_frames", "--timeline=when.png"]
    if scored:
        arguments += ["--ground_truth=gt.txt", "--scores=scores.json"]
    out = track(*SEEN, *arguments, cwd=root)
    assert "2 tracks with 24 of 24 detections" in out
    tracks = read_mot(root / "tracks.txt")
    assert purity(tracks, read_mot(root / "gt.txt")) == [1, 1]
    pictures = sorted((root / "drawn_frames").iterdir())
    assert len(pictures) == 12
    assert (root / "when.png").exists()
    with Image.open(pictures[0]) as picture:
        assert picture.size == (200, 100)
    if scored:
        scores = json.loads((root / "scores.json").read_text())
        assert (scores["mota"], scores["idf1"], scores["switches"]) == (1, 1, 0)
        assert "HOTA            100.00 %" in out
    err = track(*SEEN, "--out=tracks.txt", cwd=root, code=1)
    assert "--out must be a new path" in err


def test_track_command_gallery_identifies_persons_across_cameras(scene):
    root, _ = scene
    pytest.importorskip("faiss")
    where = ["--gallery=faiss:people.faiss", "--match_probability=0.5"]
    with gallery.open(f"faiss:{root}/people.faiss") as people:
        people.calibration = match_within(0.05)
    for number, camera in enumerate(("north", "south", "north")):
        out = track(*SEEN, *where, f"--camera={camera}", f"--out={number}.txt", cwd=root)
        assert "track 1: person-1" in out
        assert "track 2: person-2" in out
        assert (", new, " in out) == (number == 0)
    with gallery.open(f"faiss:{root}/people.faiss") as people:
        # Once for each camera, though the videos have one name.
        assert people.identities() == {"person-1": 2, "person-2": 2}


def test_track_command_annotated_video_keeps_frame_rate(scene):
    root, _ = scene
    cv2 = pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")
    frames = list(data.Video(root / "frames"))
    writer = cv2.VideoWriter(
        str(root / "slow.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 7.0, frames[0].shape[1::-1]
    )
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    arguments = ["--source=slow.avi", "--detections=gt.txt", "--noappearance", "--out=slow.txt"]
    track(*arguments, "--annotated=slow_drawn.avi", cwd=root)
    assert data.Video(root / "slow_drawn.avi").rate == pytest.approx(7)
    assert len(list(data.Video(root / "slow_drawn.avi"))) == len(frames)
    assert data.Video(root / "frames").rate is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--source and one of --out"),
        (["--source=frames"], "--source and one of --out"),
        (
            ["--source=frames", "--out=x.txt", "--run=r", "--saved_model=s"],
            "Only one of --model, --run, --saved_model",
        ),
        (
            ["--source=frames", "--out=x.txt", "--timeline=x.txt"],
            "--timeline must be a path that ends in",
        ),
        (["--source=frames", "--out=x.txt", "--detector=yolo"], "--detector must be ssdlite"),
        (
            ["--source=frames", "--out=x.txt", "--detector=no.pb"],
            "no.pb` must be a graph with image_tensor",
        ),
        (
            ["--source=frames", "--out=x.txt", "--detector=hog", "--detections=gt.txt"],
            "--detections excludes --detector",
        ),
        (
            [
                "--source=no",
                "--noappearance",
                "--detections=gt.txt",
                "--annotated=y",
                "--out=x.txt",
            ],
            "got neither",
        ),
        (
            ["--source=frames", "--noappearance", "--detections=frames", "--out=x.txt"],
            "Is a directory",
        ),
        (
            [
                "--source=frames",
                "--noappearance",
                "--detections=gt.txt",
                "--min_confidence=2",
                "--out=x.txt",
            ],
            "Lower --min_confidence",
        ),
    ],
)
def test_track_command_invalid_flags_print_error(scene, arguments, message):
    root, _ = scene
    err = track(*arguments, cwd=root, code=1)
    assert err.strip().splitlines()[-1].startswith("error: ")
    assert message in err
    (root / "x.txt").unlink(missing_ok=True)


@pytest.mark.real
def test_track_real_video_by_motion_has_high_idf1(real_data):
    pytest.importorskip("trackeval", reason="TrackEval, extra tracking, is not installed")
    truth = read_mot(real_data / "data/pets09-s2l1/gt/gt.txt")
    truth = truth[truth.confidence > 0]
    scores = tracking.tracking_scores(truth, tracking.track(truth))
    assert scores.idf1 > 0.9
    assert scores.switches < 5
