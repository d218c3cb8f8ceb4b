"""Detectors of persons: windows, suppression, and networks of each format."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from keras_reid import data, detection, tracking
from keras_reid.data.mot import read_mot
from keras_reid.detection import loading, networks, windows
from keras_reid.detection.suppression import MAX_IOU, overlaps, without_overlaps
from keras_reid.errors import InputError


def test_detector_of_invalid_name_or_file_raises(tmp_path):
    (tmp_path / "x.pb").write_bytes(b"no graph")
    for name, message in {
        "yolo": "`detector` must be ssdlite, hog, or a file",
        str(tmp_path / "no.pb"): "No such file",
        str(tmp_path / "x.pb"): "x.pb` must be a graph with image_tensor",
    }.items():
        with pytest.raises(InputError, match=message):
            detection.detector_of(name)


class Seer:
    """Detect the white box in each square, like a network."""

    def __init__(self, score=0.9):
        self.score, self.squares = score, 0

    def __call__(self, squares):
        boxes, scores = np.zeros((len(squares), 2, 4)), np.zeros((len(squares), 2))
        self.squares = len(squares)
        for i, square in enumerate(squares):
            rows, columns = np.nonzero(square[..., 0] > 127)
            if len(rows):
                ends = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
                boxes[i, 0], scores[i, 0] = np.array(ends) / len(square), self.score
        return boxes, scores


@pytest.mark.parametrize("box", [(40, 30, 20, 50), (205, 100, 30, 60), (285, 160, 15, 40)])
def test_windows_small_person_is_found_once(box):
    x, y, w, h = box
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[y : y + h, x : x + w] = 255
    seer = Seer()
    found, scores = windows.detect_in_windows(seer, frame)
    np.testing.assert_allclose(found, [box], atol=1.5)
    assert scores.tolist() == [0.9]
    assert seer.squares == 3 * 5 + 2 + 1  # 100 pixels wide, every 50; 200 wide; and the whole


def test_windows_large_person_is_found_in_whole_frame():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[10:190, 100:180] = 255
    found, _ = windows.detect_in_windows(Seer(), frame)
    np.testing.assert_allclose(found, [(100, 10, 80, 180)], atol=2)


class Parts(Seer):
    """Detect a person in the middle of each small window that is white there."""

    def __call__(self, squares):
        boxes, scores = super().__call__(squares)
        for i in range(3, len(squares)):  # after the frame and two large windows
            white = squares[i][100:200, 100:200].min() > 127
            boxes[i, 0], scores[i, 0] = (0.25, 0.25, 0.75, 0.75), 0.99 * white
        return boxes, scores


def test_windows_parts_of_large_person_are_dropped():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[10:190, 100:180] = 255
    found, _ = windows.detect_in_windows(Parts(), frame)
    np.testing.assert_allclose(found, [(100, 10, 80, 180)], atol=2)


def test_windows_low_score_is_dropped():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[30:80, 40:60] = 255
    detector = partial(windows.detect_in_windows, Seer(score=0.29))
    found, scores = detector(frame)
    assert len(found) == len(scores) == 0
    assert len(tracking.detect_persons([frame], detector)) == 0


def _detects(images):
    """Graph that detects a person in the left upper quarter and another object."""
    count = tf.shape(images)[0]
    boxes = tf.tile(tf.constant([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]]), [count, 1, 1])
    scores = tf.tile(tf.constant([[0.8, 0.9]]), [count, 1])
    return boxes, scores, count


def test_frozen_graph_returns_person_scores_only(tmp_path):
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
        boxes, scores, count = _detects(images)
        tf.identity(boxes, "detection_boxes")
        tf.identity(scores, "detection_scores")
        tf.tile(tf.constant([[1.0, 2.0]]), [count, 1], "detection_classes")
    file = tmp_path / "net.pb"
    file.write_bytes(graph.as_graph_def().SerializeToString())
    boxes, scores = networks.frozen_graph(file)(np.zeros((3, 300, 300, 3), np.uint8))
    assert boxes.shape == (3, 2, 4)
    np.testing.assert_allclose(scores, [[0.8, 0]] * 3)
    found, sure = detection.detector_of(str(file))(np.zeros((100, 100, 3), np.uint8))
    # Of the whole frame; each window has one too, which is cut where the window ends in the frame.
    assert [0, 0, 50, 50] in found.round().tolist()
    assert sure.max() < 0.85


def test_litert_returns_person_scores_only(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="LiteRT, extra litert, is not installed")

    @tf.function(input_signature=[tf.TensorSpec((1, 64, 64, 3), tf.uint8)])
    def net(images):
        boxes, scores, _ = _detects(images)
        seen = tf.reduce_max(tf.cast(images, tf.float32)) / 255  # which nothing folds away
        return boxes * seen, tf.constant([[0.0, 1.0]]) * seen, scores * seen, seen[None] * 2

    converter = tf.lite.TFLiteConverter.from_concrete_functions([net.get_concrete_function()])
    file = tmp_path / "net.tflite"
    file.write_bytes(converter.convert())
    boxes, scores = networks.litert(file)(np.full((2, 300, 300, 3), 255, np.uint8))
    np.testing.assert_allclose(boxes[0], [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])
    np.testing.assert_allclose(scores, [[0.8, 0]] * 2, rtol=1e-6)


def test_detect_persons_hog_blank_frames_finds_none(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")
    frame = np.full((200, 200, 3), 200, np.uint8)
    if not hasattr(cv2, "HOGDescriptor"):
        with pytest.raises(InputError, match="opencv-python<5"):
            detection.detector_of("hog")
        return
    told = []
    found = tracking.detect_persons([frame, frame], detection.detector_of("hog"), told.append)
    assert len(found) == 0
    assert told == [1, 2]


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize(("name", "least"), [("ssdlite", 0.7), ("hog", 0.1)])
def test_detect_persons_real_video_finds_most_persons(real_data, name, least):
    """Half of the detections in some frames lie on a true box, and most persons are found."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV, extra tracking, is not installed")
    if name == "hog" and not hasattr(cv2, "HOGDescriptor"):
        pytest.skip(f"OpenCV {cv2.__version__} has no detector of persons")
    if name == "ssdlite":
        pytest.importorskip(loading.PACKAGE, reason="ssdlite, extra tracking, is not installed")
    video = real_data / "data/pets09-s2l1/vtest.avi"
    frames = [f for i, f in enumerate(data.Video(video), start=1) if i in (1, 100, 200)]
    found = tracking.detect_persons(frames, detection.detector_of(name))
    truth = read_mot(real_data / "data/pets09-s2l1/gt/gt.txt")
    best, seen = [], []
    for place, number in enumerate((1, 100, 200), start=1):
        pair = found.box[found.frame == place], truth.box[truth.frame == number]
        best += overlaps(*pair).max(axis=1).tolist()
        seen += overlaps(*pair).max(axis=0).tolist()
    assert len(best) >= 5
    assert np.median(best) > 0.5
    assert np.mean(np.array(seen) > 0.5) > least


@pytest.mark.parametrize("count", [0, 1, 200])
def test_without_overlaps_equals_suppression_of_tensorflow(count):
    rng = np.random.default_rng(count)
    boxes = np.concatenate([rng.uniform(0, 60, (count, 2)), rng.uniform(1, 40, (count, 2))], 1)
    scores = rng.permutation(count) / max(1, count)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1).astype(np.float32)
    kept = tf.image.non_max_suppression(corners, scores.astype(np.float32), max(1, count), MAX_IOU)
    found, sure = without_overlaps(boxes, scores)
    np.testing.assert_array_equal(found, boxes[kept.numpy()])
    np.testing.assert_array_equal(sure, scores[kept.numpy()])
