"""Damaged frames in the middle of a video, and files that end early."""

import logging

import numpy as np
import pytest
from PIL import Image
from processes import within
from test_variable_frame_rate import PHONE
from test_variable_frame_rate import written as variable

from keras_reid import data
from keras_reid.errors import InputError

cv2 = pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")

COUNT = 40
SIZE = (64, 48)


def written(file, codec="MJPG"):
    """Write a video; frame i has the shade 6 i."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), 25, SIZE)
    assert writer.isOpened()
    for number in range(COUNT):
        writer.write(np.full((*SIZE[::-1], 3), 6 * number, np.uint8))
    writer.release()
    return file


def encoded(file):
    """Encoded frames, in the order of the file."""
    capture = cv2.VideoCapture(str(file), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    packets = []
    while capture.grab():
        packets.append(capture.retrieve()[1].tobytes())
    return packets


def damage(file, *numbers):
    """Overwrite the data of these frames with zeros, as a bad sector does."""
    content, place = bytearray(file.read_bytes()), 0
    for number, packet in enumerate(encoded(file)):
        end = packet[-40:]  # the first packet may begin with a copy of the header
        place = content.find(end, place) + len(end)
        if number in numbers:
            content[place - len(packet) : place] = bytes(len(packet))
    file.write_bytes(content)


def shades(video):
    # Lossy codecs darken by 2 or 3 gray levels.
    return [round(float(frame.mean()) / 6 + 0.3) for frame in data.Video(video)]


@pytest.mark.parametrize(
    ("name", "codec"), [("v.avi", "MJPG"), ("v.mp4", "mp4v"), ("v.webm", "VP80"), ("v.mkv", "MJPG")]
)
def test_video_damaged_frames_are_counted_and_replaced(tmp_path, caplog, name, codec):
    video = written(tmp_path / name, codec)
    if codec == "MJPG":
        damage(video, 10, 20, 21)
        expected, lost = [*range(10), 9, *range(11, 20), 19, 19, *range(22, COUNT)], 3
    else:  # later frames depend on those before them
        damage(video, COUNT - 2)
        expected, lost = [*range(COUNT - 2), COUNT - 3, COUNT - 1], 1
    with caplog.at_level(logging.WARNING, "absl"):
        got = shades(video)
    assert len(got) == COUNT
    last = COUNT if codec == "MJPG" else COUNT - 1
    assert got[:last] == expected[:last]
    assert f"{lost} of {COUNT} frames of" in caplog.text


@pytest.mark.parametrize("numbers", [(0,), (0, 1), (COUNT - 1,), (COUNT - 2, COUNT - 1)])
def test_video_damaged_first_or_last_frames_keep_numbers(tmp_path, caplog, numbers):
    video = written(tmp_path / "v.avi")
    damage(video, *numbers)
    with caplog.at_level(logging.WARNING, "absl"):
        got = shades(video)
    good = [n for n in range(COUNT) if n not in numbers]
    assert got == [min(max(n, good[0]), good[-1]) for n in range(COUNT)]
    assert f"{len(numbers)} of {COUNT} frames of" in caplog.text


@pytest.mark.parametrize("numbers", [(0,), (0, 1, 2), (0, 10, 11), (COUNT - 1,)])
@pytest.mark.parametrize("name", ["v.avi", "v.mkv"])
def test_video_times_of_damaged_frames_equal_packet_times(tmp_path, name, numbers):
    video = written(tmp_path / name)
    damage(video, *numbers)
    np.testing.assert_allclose(data.Video(video).times, np.arange(COUNT) / 25, atol=1e-3)


def test_video_times_of_damaged_frames_at_varying_rate_equal_packet_times(tmp_path):
    video = variable(tmp_path / "v.mkv", "MJPG", PHONE)
    damage(video, 0, 1, 10, 11)
    expected = (np.array(PHONE) - PHONE[0]) / 25
    np.testing.assert_allclose(data.Video(video).times, expected, atol=1e-3)


def test_video_whole_file_logs_nothing(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "absl"):
        assert shades(written(tmp_path / "v.avi")) == [*range(COUNT)]
    assert caplog.text == ""


@pytest.mark.parametrize("numbers", [range(10, 15), range(35, 40), range(0, 40, 8)])
def test_video_more_than_tenth_damaged_raises(tmp_path, numbers):
    video = written(tmp_path / "v.avi")
    damage(video, *numbers)
    with pytest.raises(
        InputError, match=f"at most 10% damaged or missing frames, got 5 of {COUNT}"
    ):
        shades(video)


@pytest.mark.parametrize(
    ("name", "codec"), [("v.avi", "MJPG"), ("v.mkv", "MJPG"), ("v.webm", "VP80")]
)
def test_video_truncated_file_raises(tmp_path, name, codec):
    video = written(tmp_path / name, codec)
    content = video.read_bytes()
    video.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"damaged or missing frames, got [123].* of {COUNT}"):
        shades(video)


def test_video_folder_broken_image_is_replaced(tmp_path, caplog):
    for number in range(1, 21):
        Image.new("RGB", SIZE, (number,) * 3).save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING, "absl"):
        got = [int(frame[0, 0, 0]) for frame in data.Video(tmp_path)]
    assert got == [1, 2, 3, 4, 4, *range(6, 21)]
    assert "1 of 20 frames of" in caplog.text
    for number in (6, 7):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    with pytest.raises(InputError, match="got 3 of 20"):
        list(data.Video(tmp_path))


def test_track_damaged_frame_is_counted_once_and_all_frames_are_drawn(tmp_path, caplog):
    damage(written(tmp_path / "v.avi"), 10)
    boxes = [f"{n},-1,{6 + n},11,10,30,1,-1,-1,-1" for n in range(1, COUNT + 1)]
    (tmp_path / "det.txt").write_text("\n".join(boxes))
    flags = ("--source=v.avi", "--detections=det.txt", "--noappearance", "--out=t.txt")
    drawn = ("--annotated=drawn", "--timeline=when.png")
    with caplog.at_level(logging.WARNING, "absl"):
        code, _, err = within("track.py", *flags, *drawn, cwd=tmp_path)
    assert code == 0, err
    assert caplog.text.count(f"1 of {COUNT} frames of v.avi are damaged") == 1
    assert len(list((tmp_path / "drawn").iterdir())) == COUNT
    damage(tmp_path / "v.avi", *range(20, 30))
    code, _, err = within(
        "track.py", *flags[:-1], "--out=u.txt", "--annotated=drawn2", cwd=tmp_path
    )
    assert code == 1
    assert "at most 10% damaged or missing frames" in err
    assert not (tmp_path / "drawn2").exists()


def test_track_broken_video_without_appearance_raises(tmp_path):
    damage(written(tmp_path / "v.avi"), *range(20, 30))
    (tmp_path / "det.txt").write_text("1,-1,7,11,10,30,1\n")
    flags = ("--source=v.avi", "--detections=det.txt", "--noappearance", "--out=t.txt")
    code, _, err = within("track.py", *flags, cwd=tmp_path)
    assert code == 1
    assert "at most 10% damaged or missing frames" in err
    assert not (tmp_path / "t.txt").exists()
