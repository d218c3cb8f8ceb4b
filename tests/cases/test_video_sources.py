"""Videos that cannot be opened, and addresses of servers."""

import functools
import http.server
import threading

import numpy as np
import pytest
from PIL import Image
from processes import within

from keras_reid import data
from keras_reid.cli import common
from keras_reid.cli import track as command
from keras_reid.errors import InputError

cv2 = pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")

SIZE = (64, 48)
OUTPUTS = {
    "out": "t.txt",
    "annotated": "drawn.avi",
    "timeline": "when.png",
    "scores": "scores.json",
    "gallery": "people.db",
}


def written(file, count=8, size=SIZE):
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 25, size)
    for number in range(count):
        writer.write(np.full((*size[::-1], 3), 6 * number, np.uint8))
    writer.release()
    return file


@pytest.fixture
def scene(tmp_path):
    rows = "".join(f"{n},1,{6 + n},11,10,30,1,-1,-1,-1\n" for n in range(1, 9))
    (tmp_path / "det.txt").write_text(rows)
    written(tmp_path / "good.avi")
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    written(tmp_path / "header.avi", count=0)
    whole = (tmp_path / "good.avi").read_bytes()
    (tmp_path / "half.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/1.png").write_bytes(b"no image")
    (tmp_path / "nothing").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    "video",
    [
        *("missing.avi", "text.avi", "empty.mp4", "header.avi", "half.avi", "frames", "nothing"),
        *("rtsp://127.0.0.1:9/x", "http://127.0.0.1:9/x.avi", "nosuch://127.0.0.1/x"),
    ],
)
def test_track_unreadable_video_leaves_no_output(scene, monkeypatch, video):
    def refuse(*args):
        pytest.fail("the model is opened before the video")

    monkeypatch.setattr(common.ModelOptions, "pixel_embedder", refuse)
    monkeypatch.setattr(command, "read_mot", refuse)
    before = sorted(scene.iterdir())
    flags = [f"--{name}={file}" for name, file in OUTPUTS.items()]
    code, out, err = within(
        *("track.py", f"--source={video}", "--detections=det.txt", "--ground_truth=det.txt"),
        *flags,
        cwd=scene,
    )
    assert code == 1
    assert out == ""
    assert err.splitlines()[-1].startswith("error: ")
    assert video in err
    assert sorted(scene.iterdir()) == before


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("more", [(), ("--annotated=drawn",), ("--frame_rate=9",)], ids=str)
def test_track_detections_beyond_short_video_raise(scene, count, more):
    written(scene / "short.avi", count)
    before = sorted(scene.iterdir())
    flags = ("--source=short.avi", "--detections=det.txt", "--noappearance", "--out=t.txt", *more)
    code, _, err = within("track.py", *flags, cwd=scene)
    assert code == 1
    frames = "1 frame" if count == 1 else f"{count} frames"
    assert f"must be in the {frames} of the video, got a box in frame {count + 1}." in err
    assert sorted(scene.iterdir()) == before


def test_cut_tracklets_table_beyond_short_video_raises(scene):
    written(scene / "short.avi", 5)
    with pytest.raises(InputError, match="in the 5 frames of the video, got a box in frame 6"):
        data.cut_tracklets(scene / "short.avi", scene / "det.txt", scene / "cut")
    assert not (scene / "cut").exists()
    assert len(data.cut_tracklets(scene / "good.avi", scene / "det.txt", scene / "cut")) == 8


@pytest.mark.parametrize("name", ["out", "annotated", "timeline", "scores"])
def test_track_existing_output_raises_before_any_work(scene, monkeypatch, name):
    def refuse(*args):
        pytest.fail("work begins before the outputs are checked")

    monkeypatch.setattr(command, "read_mot", refuse)
    (scene / OUTPUTS[name]).write_text("kept")
    flags = [f"--{key}={file}" for key, file in OUTPUTS.items() if key != "gallery"]
    code, _, err = within(
        "track.py", "--source=good.avi", "--detections=det.txt", *flags, cwd=scene
    )
    assert code == 1
    assert f"--{name} must be a new path" in err
    assert (scene / OUTPUTS[name]).read_text() == "kept"


def test_track_size_unsupported_by_codec_raises_before_any_work(scene, monkeypatch):
    def refuse(*args):
        pytest.fail("work begins before the size is checked")

    monkeypatch.setattr(command, "read_mot", refuse)
    (scene / "frames/1.png").unlink()
    Image.new("RGB", (70_000, 1)).save(scene / "frames/1.png")
    flags = ("--detections=det.txt", "--noappearance", "--out=t.txt", "--annotated=a.mp4")
    code, _, err = within("track.py", "--source=frames", *flags, cwd=scene)
    assert code == 1
    assert "--annotated must be a video that OpenCV can write, got *.mp4 of 70000 x 1" in err
    assert not (scene / "t.txt").exists()


def test_track_frames_of_two_sizes_leave_no_output(scene):
    (scene / "frames/1.png").unlink()
    for number in range(1, 9):
        Image.new("RGB", (64, 40 + number // 5)).save(scene / f"frames/{number}.png")
    flags = ("--source=frames", "--detections=det.txt", "--noappearance", "--out=t.txt")
    code, _, err = within("track.py", *flags, "--annotated=a.avi", cwd=scene)
    assert code == 1
    assert "frame 5 of (64, 41) after (64, 40)" in err
    assert not (scene / "t.txt").exists()
    assert not (scene / "a.avi").exists()


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://user:p%40ss@10.0.0.9:554//Streaming/Channels/101?transport=tcp",
        "RTSPS://camera/~live",
        "http://host/a//b.mp4",
        "udp://@:1234",
    ],
)
def test_video_address_reaches_opencv_unchanged(monkeypatch, address):
    seen = []

    class Refused:
        def __init__(self, source, *_):
            seen.append(source)

        def isOpened(self):
            return False

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Refused)
    video = data.Video(address)
    with pytest.raises(InputError, match="`source` must be a video that OpenCV reads"):
        _ = video.size
    assert seen == [address]  # once: a refused stream takes 30 s
    assert video.name == address


def test_video_live_stream_raises(scene, monkeypatch):
    capture = cv2.VideoCapture(str(scene / "good.avi"))

    class Live:  # a subclass of OpenCV's class crashes the garbage collector
        def __init__(self, *_):
            pass

        def __getattr__(self, name):
            return getattr(capture, name)

        def get(self, prop):
            return -9.2e17 if prop == cv2.CAP_PROP_FRAME_COUNT else capture.get(prop)

        def grab(self):
            pytest.fail("a stream without an end is read")

    monkeypatch.setattr(cv2, "VideoCapture", Live)
    with pytest.raises(
        InputError, match="must be a video with an end, got the live stream rtsp://x/y"
    ):
        _ = data.Video("rtsp://x/y").size


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_track_video_of_http_server_is_tracked(scene):
    handler = functools.partial(Quiet, directory=str(scene))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/good.avi"
        assert len(list(data.Video(address))) == 8
        flags = ("--detections=det.txt", "--noappearance", "--out=t.txt", "--annotated=a.avi")
        code, out, err = within("track.py", f"--source={address}", *flags, cwd=scene)
        server.shutdown()
    assert code == 0, err
    assert "1 track with 8" in out
    assert len(list(data.Video(scene / "a.avi"))) == 8
