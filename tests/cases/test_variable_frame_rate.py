"""Times of frames that are not evenly spaced come from the container."""

import numpy as np
import pytest
from conftest import match_within
from processes import within

from keras_reid import data, gallery, models, tracking, visualize
from keras_reid.cli import track as command
from keras_reid.data.mot import Boxes
from keras_reid.data.video import _filled
from keras_reid.errors import InputError
from keras_reid.training.runs import Run

cv2 = pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")

SIZE = (64, 48)
MOTION = [*range(20), *range(1519, 1539)]  # a minute without motion after the 20th frame
PHONE = np.cumsum(np.random.default_rng(0).integers(1, 4, 40)).tolist()


def written(file, codec, ticks, rate=25):
    """Write a video of MJPG or VP8 with frames at these multiples of 1 / rate."""
    even = file.with_name("even.mkv")
    writer = cv2.VideoWriter(str(even), cv2.VideoWriter_fourcc(*codec), rate, SIZE)
    for number in range(len(ticks)):
        writer.write(np.full((*SIZE[::-1], 3), 6 * number, np.uint8))
    writer.release()
    encoded = cv2.VideoCapture(str(even), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    settings = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1, cv2.VIDEOWRITER_PROP_IS_COLOR, 1]
    code = int(encoded.get(cv2.CAP_PROP_FOURCC))
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, code, rate, SIZE, settings)
    for tick in ticks:
        writer.set(cv2.VIDEOWRITER_PROP_KEY_FLAG, float(codec == "MJPG" or tick == ticks[0]))
        writer.set(cv2.VIDEOWRITER_PROP_PTS, int(tick))
        assert encoded.grab()
        writer.write(encoded.retrieve()[1])
    writer.release()
    return file


@pytest.mark.parametrize("ticks", [MOTION, PHONE, [*range(40)]])
@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "MJPG"), ("v.webm", "VP80")])
def test_video_times_equal_container_times(tmp_path, name, codec, ticks):
    video = data.Video(written(tmp_path / name, codec, ticks))
    assert len(list(video)) == 40
    expected = (np.array(ticks) - ticks[0]) / 25
    np.testing.assert_allclose(video.times, expected, atol=1e-3)
    unread = data.Video(video.path)  # which reads the frames for their times
    np.testing.assert_allclose(unread.times, expected, atol=1e-3)


def test_video_folder_has_no_times(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.zeros((8, 8, 3), np.uint8))
    assert data.Video(tmp_path).times is None
    assert data.Video(tmp_path).rate is None


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ([3.0, 3.5, np.nan, 4.5], [0, 0.5, 1, 1.5]),  # a damaged frame
        ([0.0, 0.5, 2.0, 0.0, np.nan], [0, 0.5, 2, 2.1, 2.2]),  # no times at the end
        ([0.0, 0.0, 0.0], [0, 0.1, 0.2]),  # no times
        ([np.nan, 0.1, 0.3], [0, 0.1, 0.3]),
        ([np.nan, np.nan, 0.5, np.nan, 0.9], [0, 0.1, 0.2, 0.4, 0.6]),
    ],
)
def test_times_missing_values_are_interpolated(seconds, expected):
    np.testing.assert_allclose(_filled(np.array(seconds), 0.1), expected)


def tracks_at(frames):
    box = np.tile([4.0, 4, 10, 30], (len(frames), 1))
    ones = np.ones(len(frames))
    return Boxes(np.array(frames), ones.astype(int), box, ones)


def test_identify_tracks_seconds_are_times_of_rows():
    tracks = tracks_at([21, 22, 23])
    seconds = np.array(MOTION)[tracks.frame - 1] / 25
    options = {"model_fingerprint": "m", "calibration": match_within(0.5), "start": 100.0}
    with gallery.open("memory:") as people:
        looks = np.ones((3, 4), np.float32)
        tracking.identify_tracks(tracks, looks, people, "a", "v", seconds=seconds, **options)
        (hit,) = people.search(looks[:1], 1)[0]
        assert hit.time == pytest.approx(100 + 1519 / 25)
        with pytest.raises(
            InputError, match=r"`seconds` must be of shape \(.*, …\), got \(2,\). Pass one row"
        ):
            tracking.identify_tracks(
                tracks, looks, people, "b", "v", seconds=seconds[:2], **options
            )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A video with a minute's gap, detections around it, and a run."""
    root = tmp_path_factory.mktemp("scene")
    written(root / "v.mkv", "MJPG", MOTION)
    lines = [f"{n},-1,5,5,10,30,1,-1,-1,-1" for n in (*range(11, 21), *range(31, 41))]
    (root / "det.txt").write_text("\n".join(lines))
    model = models.build("tiny", 3, (32, 16), weights="none")
    run = Run(root / "run")
    run.start({"flip": False, "dataset": "synthetic", "data_dir": "drawn"})
    run.save_models([model])
    run.finish({})
    return root


FLAGS = ("--source=v.mkv", "--detections=det.txt", "--max_age=5")


def test_track_times_of_gallery_equal_container_times(scene):
    pytest.importorskip("faiss")
    with gallery.open(f"faiss:{scene}/people.faiss") as people:
        people.calibration = match_within(1.0)
    where = ("--gallery=faiss:people.faiss", "--run=run", "--start=7")
    code, out, err = within("track.py", *FLAGS, *where, "--camera=door", cwd=scene)
    assert code == 0, err
    assert "7.40 to 7.76 s" in out
    assert f"{7 + 1529 / 25:.2f} to {7 + 1538 / 25:.2f} s" in out
    with gallery.open(f"faiss:{scene}/people.faiss") as people:
        hits = people.search(np.ones((1, people.width), np.float32), 2)[0]
    assert sorted(hit.time for hit in hits) == pytest.approx([7.4, 7 + 1529 / 25], abs=1e-3)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ((), [(0.4, 0.76), (1529 / 25, 1538 / 25)]),
        (("--frame_rate=10",), [(1.0, 1.9), (3.0, 3.9)]),  # replaces the times of the file
    ],
)
def test_track_timeline_times_equal_container_times(scene, monkeypatch, more, expected):
    drawn = []

    def spy(seen, draw=visualize.draw_timeline):
        drawn.append(seen)
        return draw(seen)

    monkeypatch.setattr(command.visualize, "draw_timeline", spy)
    name = f"{len(more)}"
    outputs = (f"--out={name}.txt", f"--timeline={name}.png")
    code, _, err = within("track.py", *FLAGS, *more, "--noappearance", *outputs, cwd=scene)
    assert code == 0, err
    spans = [span for spans in drawn[0].values() for span in spans]
    np.testing.assert_allclose(spans, expected, atol=1e-3)


def test_track_detections_beyond_video_raise(scene):
    (scene / "late.txt").write_text("".join(f"{n},-1,5,5,10,30,1\n" for n in range(38, 50)))
    flags = ("--source=v.mkv", "--detections=late.txt", "--noappearance", "--out=l.txt")
    code, _, err = within("track.py", *flags, "--timeline=l.png", cwd=scene)
    assert code == 1
    assert "`boxes` must be in the 40 frames of the video, got a box in frame 41" in err
    assert not (scene / "l.txt").exists()
