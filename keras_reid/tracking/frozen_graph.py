"""Frozen graphs of detectors, run by TensorFlow."""

import os
from collections.abc import Callable

import numpy as np

from keras_reid.io import parsing
from keras_reid.names import expanded

# Squares, uint8 RGB (b, s, s, 3) → boxes of persons (b, n, 4), top, left, bottom, right as
# fractions of the square, and scores (b, n).
Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes")


def frozen_graph(path: str | os.PathLike[str]) -> Network:
    """Return a frozen graph of TensorFlow's Object Detection API; class 1 is a person.

    Its input is `image_tensor` uint8 (b, h, w, 3). Its outputs are `detection_boxes`,
    `detection_scores` and `detection_classes`. A graph can contain any TensorFlow operation: use
    one from a trusted source.

    Raises:
        InputError: the file is missing, or the graph has other inputs or outputs.
    """
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef()
    rule = f"be a graph with image_tensor, {', '.join(OUTPUTS)}"
    # protobuf and TensorFlow raise many types.
    with parsing(path, rule, "Choose another detector.", Exception):
        graph.ParseFromString(expanded(path).read_bytes())
        whole = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        tensors = [whole.graph.get_tensor_by_name(f"{name}:0") for name in OUTPUTS]
        detect = whole.prune(whole.graph.get_tensor_by_name("image_tensor:0"), tensors)

    def network(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores, classes = (x.numpy() for x in detect(tf.constant(squares)))
        return boxes, np.where(classes == 1, scores, 0)

    return network
