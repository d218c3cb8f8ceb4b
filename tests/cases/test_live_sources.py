"""Cameras, live streams, images and rotated videos as sources."""

import http.server
import json
import os
import resource
import signal
import threading
import time

import numpy as np
import pytest
from PIL import Image
from processes import Command, within
from test_video_sources import SIZE, written

from keras_reid import data, detection, tracking
from keras_reid.data.mot import read_mot
from keras_reid.errors import InputError

cv2 = pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")

PERSON = (20, 8, 12, 30)  # x, y, w, h


def encoded(shade, size=SIZE):
    """Return a JPEG with a white person on this shade."""
    frame = np.full((*size[::-1], 3), shade, np.uint8)
    x, y, w, h = PERSON
    frame[y : y + h, x : x + w] = 255
    return cv2.imencode(".jpg", frame)[1].tobytes()


class Camera(http.server.BaseHTTPRequestHandler):
    """MJPEG camera; each connection gets the next of `lengths` frames, then none is accepted."""

    lengths: list[int]
    size = SIZE
    pause = 0.02

    def log_message(self, *args):
        pass

    def do_GET(self):
        if not self.lengths:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(self.lengths.pop(0)):
            content = encoded(number % 100, self.size)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
            try:
                self.wfile.write(head.encode() + content + b"\r\n")
            except OSError:  # the client has left
                return
            time.sleep(self.pause)


@pytest.fixture
def camera():
    """Function of numbers of frames that starts a camera and returns its address."""
    servers = []

    def start(*lengths, size=SIZE):
        handler = type("Handler", (Camera,), {"lengths": [*lengths], "size": size})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/stream.mjpg"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def quick(monkeypatch):
    """Attempts to reconnect without a pause."""
    monkeypatch.setattr(data.streams.time, "sleep", lambda seconds: None)


@pytest.fixture
def white(monkeypatch):
    """Detector of the white person."""

    def detect(frame):
        rows, columns = np.nonzero(frame[..., 0] > 200)
        if not len(rows):
            return np.zeros((0, 4)), np.zeros(0)
        left, top = columns.min(), rows.min()
        return np.array([[left, top, np.ptp(columns) + 1, np.ptp(rows) + 1]]), np.array([0.9])

    monkeypatch.setattr(detection, "detector_of", lambda *names: detect, raising=False)


def test_camera_missing_index_prints_one_error(tmp_path, capfd):
    code, out, err = within("track.py", "--source=99", "--out=t.txt", cwd=tmp_path)
    assert code == 1
    assert out == ""
    assert err.splitlines() == [
        "error: --source must be a video that OpenCV reads, got camera index 99. The first camera "
        "has index 0."
    ]
    assert "WARN" not in capfd.readouterr().err  # lines of OpenCV
    assert not list(tmp_path.iterdir())


def test_stream_lost_connection_is_opened_again(camera, quick):
    stream = data.open_video(camera(6, 5), max_reconnects=2)
    assert isinstance(stream, data.Stream)
    assert stream.size == SIZE
    assert stream.rate is None  # MJPEG over HTTP states none
    times, shades = [], []
    with pytest.raises(data.StreamLost, match="after 2 attempts to reconnect"):  # noqa: PT012
        for second, frame in stream.timed():
            times.append(second)
            shades.append(round(float(frame[0, 0, 0])))
    np.testing.assert_allclose(shades, [*range(6), *range(5)], atol=3)
    assert (np.diff(times) > 0).all()


def test_stream_limit_counts_attempts_in_a_row(camera, quick):
    stream = data.open_video(camera(6, 6, 6), max_reconnects=1)
    with pytest.raises(data.StreamLost):
        for count, _ in enumerate(stream, start=1):  # noqa: B007
            pass
    assert count == 18


def test_track_lost_stream_leaves_complete_files(camera, quick, white, tmp_path):
    flags = ("--noappearance", "--out=t.jsonl", "--detections_out=d.txt", "--crops=crops")
    source = (f"--source={camera(8)}", "--max_reconnects=1", "--detect_every=1")
    code, _, err = within("track.py", *source, *flags, cwd=tmp_path)
    assert code == 1
    assert err.splitlines()[-1].startswith("error: --source must send frames until")
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["frame"] for row in rows] == [*range(1, 9)]
    assert {row["track"] for row in rows} == {1}
    assert abs(rows[0]["time"] - time.time()) < 600
    np.testing.assert_allclose(rows[3]["box"], PERSON, atol=2)
    assert len(read_mot(tmp_path / "d.txt")) == 8
    crops = sorted((tmp_path / "crops/000001").iterdir())
    assert crops
    with Image.open(crops[0]) as crop:
        assert abs(crop.width - PERSON[2]) <= 2


def test_track_stream_with_output_of_all_frames_raises(camera, tmp_path):
    flags = ("--noappearance", "--out=t.txt", "--timeline=t.png")
    code, _, err = within("track.py", f"--source={camera(5)}", *flags, cwd=tmp_path)
    assert code == 1
    assert "must be a recording for --timeline, got the stream http://" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_track_interrupted_stream_leaves_complete_files(camera, tmp_path):
    """Ctrl-C in another process; hog detects nobody, so that no model is needed."""
    if not hasattr(cv2, "HOGDescriptor"):
        pytest.skip(f"OpenCV {cv2.__version__} has no detector of persons")
    source = (f"--source={camera(100_000, size=(200, 200))}", "--detector=hog", "--noappearance")
    command = Command("track.py", *source, "--out=t.txt", "--detections_out=d.txt", cwd=tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "t.txt").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(1)
    assert command.poll() is None, command.communicate()
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(60)
    assert command.returncode == 130
    assert "Interrupted after frame" in err
    assert "Traceback" not in err
    assert "0 tracks" in out
    assert (tmp_path / "t.txt").read_text() == (tmp_path / "d.txt").read_text() == ""


def test_track_interrupted_video_leaves_tracks_of_its_frames(white, tmp_path, monkeypatch):
    written(tmp_path / "v.avi", 30)
    seen = []

    def interrupting(number, image):
        seen.append(number)
        if number == 10:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        return np.array([[10.0, 5, 12, 30]]), np.ones(1)

    monkeypatch.setattr("keras_reid.cli.track._detect", lambda options, given: interrupting)
    flags = ("--source=v.avi", "--noappearance", "--out=t.txt", "--annotated=a.avi")
    code, _, err = within("track.py", *flags, "--detect_every=1", cwd=tmp_path)
    assert code == 130
    assert "Not written: --annotated." in err
    frames = read_mot(tmp_path / "t.txt").frame.tolist()
    assert 3 <= len(frames) <= 14
    assert frames == [*range(1, len(frames) + 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.txt", "v.avi"]
    assert max(seen) < 30


def rotated(file, quarters):
    """Write an MP4 whose header says that it is shown turned clockwise."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"mp4v"), 25, SIZE)
    frame = np.zeros((*SIZE[::-1], 3), np.uint8)
    frame[:, : SIZE[0] // 2] = 255  # the left half
    for _ in range(5):
        writer.write(frame)
    writer.release()
    content = bytearray(file.read_bytes())
    cosine, sine = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters]
    matrix = [cosine, sine, 0, -sine, cosine, 0, 0, 0]
    place = content.index(b"tkhd") + 4 + 40  # version 0
    numbers = np.array([number << 16 for number in matrix], ">i4")
    content[place : place + 32] = numbers.tobytes()
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    ("quarters", "white_part"),
    [
        (0, np.s_[:, : SIZE[0] // 2]),
        (1, np.s_[: SIZE[0] // 2]),
        (2, np.s_[:, SIZE[0] // 2 :]),
        (3, np.s_[SIZE[0] // 2 :]),
    ],
)
def test_video_rotation_of_phone_is_applied(tmp_path, quarters, white_part):
    video = data.Video(rotated(tmp_path / "v.mp4", quarters))
    assert video.size == (SIZE if quarters % 2 == 0 else SIZE[::-1])
    for frame in video:
        assert frame[white_part].mean() > 230
        assert frame.mean() < 150


def test_track_image_is_video_of_one_frame(white, tmp_path):
    (tmp_path / "one.jpg").write_bytes(encoded(0))
    flags = ("--source=one.jpg", "--noappearance", "--out=t.txt")
    code, _, err = within("track.py", *flags, cwd=tmp_path)
    assert code == 0, err
    np.testing.assert_allclose(read_mot(tmp_path / "t.txt").box, [PERSON], atol=2)


def test_open_video_digits_are_file_or_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "7/1.png")
    assert data.open_video("7").size == SIZE
    with pytest.raises(InputError, match="got camera index 98"):
        data.open_video("98")


def test_track_saved_detections_give_same_tracks(white, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(12):
        (tmp_path / f"frames/{number}.jpg").write_bytes(encoded(number))
    flags = ("--source=frames", "--noappearance", "--detect_every=3")
    code, out, err = within(
        "track.py", *flags, "--out=a.txt", "--detections_out=d.txt", cwd=tmp_path
    )
    assert code == 0, err
    assert "d.txt (use them with --detect_every=3)" in out
    assert read_mot(tmp_path / "d.txt").frame.tolist() == [1, 4, 7, 10]
    assert read_mot(tmp_path / "a.txt").frame.tolist() == [*range(1, 11)]
    code, _, err = within("track.py", *flags, "--detections=d.txt", "--out=b.txt", cwd=tmp_path)
    assert code == 0, err
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "b.txt").read_text()


@pytest.mark.parametrize("value", ["0", "101", "-1", "often", "1.5", ""])
def test_track_invalid_detect_every_raises(tmp_path, value):
    flags = ("--source=x", "--out=t.txt", f"--detect_every={value}")
    code, _, err = within("track.py", *flags, cwd=tmp_path)
    assert code == 1
    assert "--detect_every must be auto, or from 1 to 100" in err


class Endless(data.Stream):
    """Stream of equal tiny frames."""

    def __init__(self, frames):
        self.source, self._count = "stub://", frames

    rate = None

    def timed(self):
        frame = np.zeros((24, 32, 3), np.uint8)
        for number in range(self._count):
            yield number / 25, frame


@pytest.mark.nightly
def test_follow_memory_of_long_stream_is_constant():
    def peak(frames):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _track_stub(frames)
            os.write(writer, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss).encode())
            os._exit(0)
        os.waitpid(child, 0)
        size = int(os.read(reader, 100))
        os.close(reader)
        os.close(writer)
        return size

    assert peak(20_000) <= 1.1 * peak(1_000)


def _track_stub(frames):
    from keras_reid.tracking.pipeline import Crops, tracks_for

    def detect(number, image):
        time.sleep(0)
        place = number % 50 // 2
        return np.array([[float(place), 2, 6, 18]]), np.ones(1)

    crops = Crops(lambda images: np.ones((len(images), 64)), (16, 8))
    for _ in tracking.follow(Endless(frames), detect, tracks_for(1), crops):
        pass
