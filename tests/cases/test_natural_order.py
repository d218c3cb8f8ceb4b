"""Natural order of file names: runs of digits compare as numbers."""

import numpy as np
import pytest
from PIL import Image

from keras_reid import data
from keras_reid.data.mot import Boxes, write_mot
from keras_reid.names import natural


def save(path, shade=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 0, 0)).save(path)
    return path


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png", "11.png", "100.png"],
        ["frame-2.jpg", "frame-10.jpg", "frame_1.jpg"],
        ["a1b2", "a1b10", "a2b1", "a10"],
        ["2/30.png", "10/4.png", "10/20.png"],
        ["x", "x1", "x1a", "x2", "xa"],
        ["007", "7", "08"],  # equal numbers keep the order of text
        ["a/b", "a/b/c", "a-b/c"],
    ],
)
def test_natural_names_sort_by_number(names):
    mixed = np.random.default_rng(0).permutation(names).tolist()
    assert sorted(mixed, key=natural) == names


def test_natural_zero_padded_names_keep_text_order():
    random = np.random.default_rng(0)
    forms = ("-1_c{:01d}s1_{:06d}_00.jpg", "{:04d}C1T0002F{:03d}.jpg", "00-1C1T{:04d}F{:03d}.jpg")
    names = [
        forms[random.integers(3)].format(*random.integers(0, 9, 2).tolist()) for _ in range(200)
    ]
    assert sorted(names, key=natural) == sorted(names)


def test_video_folder_unpadded_names_are_in_natural_order(tmp_path):
    for number in (*range(1, 13), 100):
        save(tmp_path / f"{number}.png", number)
    shades = [int(frame[0, 0, 0]) for frame in data.Video(tmp_path)]
    assert shades == [*range(1, 13), 100]


def test_unlabeled_numbered_folders_are_in_natural_order(tmp_path):
    for name in ("10/1.png", "2/11.png", "2/3.png"):
        save(tmp_path / name)
    paths = [path[len(str(tmp_path)) + 1 :] for path in data.unlabeled(tmp_path).path]
    assert paths == ["2/3.png", "2/11.png", "10/1.png"]


def frames_of(part):
    """Frame numbers in the names, by tracklet."""
    numbers = [int(path.rsplit("F", 1)[1].split(".")[0].split("X")[0]) for path in part.path]
    return [[numbers[row] for row in rows] for rows in part.tracklet_rows]


def test_mars_five_digit_frames_are_sorted_last(tmp_path):
    for folder in ("bbox_train", "bbox_test"):
        for person in (1, 2):
            for camera in (1, 2):
                for frame in (9998, 9999, 10000, 10001):
                    name = f"{person:04d}C{camera}T0001F{frame:04d}.jpg"
                    save(tmp_path / folder / f"{person:04d}" / name)
    train = data.load("mars", tmp_path).train
    assert frames_of(train) == [[9998, 9999, 10000, 10001]] * 4


def test_duke_video_unpadded_frames_are_in_natural_order(tmp_path):
    for part in ("train", "query", "gallery"):
        for frame in (9, 10, 100):
            save(tmp_path / part / "0001" / "0001" / f"0001C6F{frame}X1.jpg")
    assert frames_of(data.load("dukemtmc-videoreid", tmp_path).train) == [[9, 10, 100]]


def test_tracklets_names_without_pattern_are_in_natural_order(tmp_path):
    files = [str(tmp_path / f"shot {number}.jpg") for number in (10, 9, 1)]
    images = data.PersonImages(np.array(files), np.zeros(3, int), np.ones(3, int))
    assert data.tracklets(images).path.tolist() == files[::-1]


def test_cut_tracklets_five_digit_frames_are_padded_alike(tmp_path, monkeypatch):
    frames = [np.full((20, 20, 3), 9, np.uint8)] * 10001
    monkeypatch.setattr("keras_reid.data.frames.Video", lambda video: iter(frames))
    number = np.array([9999, 10000, 10001])
    box = np.tile([2.0, 2, 8, 8], (3, 1))
    write_mot(Boxes(number, np.ones(3, int), box, np.ones(3)), tmp_path / "gt.txt")
    cut = data.cut_tracklets(tmp_path, tmp_path / "gt.txt", tmp_path / "cut")
    names = [path.rsplit("/", 1)[1] for path in cut.path]
    assert names == [f"0001C1T0001F{n:05d}.jpg" for n in (9999, 10000, 10001)]
    assert frames_of(data.tracklets(cut.without(data.TRACKLET))) == [[9999, 10000, 10001]]
