"""Conversion of a frozen graph for ONNX Runtime: equal detections, cache, and missing packages."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_reid.detection import converted_graph
from keras_reid.detection.networks import frozen_graph

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime", reason="ONNX Runtime, extra tracking, is not installed")


@pytest.fixture
def file(tmp_path: Path, monkeypatch) -> Path:
    """Graph of two boxes: one of a person in proportion to the brightness, and another object."""
    with tf.Graph().as_default() as graph:
        images = tf.compat.v1.placeholder(tf.uint8, (None, None, None, 3), "image_tensor")
        light = tf.reduce_mean(tf.cast(images, tf.float32) / 255, axis=(1, 2, 3))
        count = tf.shape(images)[0]
        boxes = tf.constant([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
        tf.tile(boxes, [count, 1, 1], "detection_boxes")
        tf.stack([light, light / 2], axis=1, name="detection_scores")
        tf.tile(tf.constant([[1.0, 2.0]]), [count, 1], "detection_classes")
    file = tmp_path / "net.pb"
    file.write_bytes(graph.as_graph_def().SerializeToString())
    monkeypatch.setattr(converted_graph, "CACHE", str(tmp_path / "cache"))
    return file


SQUARES = np.random.default_rng(0).integers(0, 256, (3, 300, 300, 3), np.uint8)


def test_converted_graph_agrees_and_is_converted_once(file, monkeypatch):
    expected = frozen_graph(file)(SQUARES)
    for _ in range(2):
        for one, other in zip(
            converted_graph.converted_graph(file)(SQUARES), expected, strict=True
        ):
            np.testing.assert_allclose(one, other, atol=1e-5)
        monkeypatch.setattr(converted_graph, "frozen_graph", None)  # no longer called
    assert len(list(Path(converted_graph.CACHE).glob("*.onnx"))) == 1


def test_converted_graph_without_packages_or_cache_runs_in_tensorflow(file, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file, not a folder")
    for package in ("", "tf2onnx", "onnxruntime"):
        monkeypatch.setattr(
            converted_graph, "find_spec", lambda name, package=package: name != package or None
        )
        scores = converted_graph.converted_graph(file)(SQUARES)[1]
        np.testing.assert_allclose(scores, frozen_graph(file)(SQUARES)[1])
