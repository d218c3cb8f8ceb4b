"""Networks of `detect_in_windows`, run by TensorFlow or LiteRT."""

import os
from typing import Any

import numpy as np
from PIL import Image

from keras_reid.detection.windows import Network
from keras_reid.errors import Shown, invalid
from keras_reid.io import parsing
from keras_reid.names import expanded

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


def litert(path: str | os.PathLike[str]) -> Network:
    """Return a LiteRT network with the usual post-processing of SSD; class 0 is a person.

    Its input is (1, s, s, 3), uint8 or float32 in [−1, 1]. Its outputs are boxes (1, n, 4), classes
    (1, n), scores (1, n) and their number.

    Raises:
        InputError: LiteRT is not installed, the file is missing, or the model has other outputs.
    """
    from keras_reid.data.keypoints import interpreter

    net = interpreter(path, "a detector")
    inputs, outputs = net.get_input_details(), net.get_output_details()
    shapes = [tuple(output["shape"]) for output in outputs]
    if len(inputs) != 1 or len(outputs) != 4 or len(shapes[0]) != 3 or shapes[0][2] != 4:
        rule = "a network of (1, s, s, 3) with outputs boxes (1, n, 4), classes, scores, number"
        raise invalid("detector", rule, Shown(f"outputs {shapes} of {path}"))
    port, side = inputs[0]["index"], int(inputs[0]["shape"][1])

    def one(square: np.ndarray) -> tuple[Any, Any]:
        pixels = np.asarray(Image.fromarray(square).resize((side, side)))[None]
        if inputs[0]["dtype"] == np.float32:
            pixels = pixels.astype(np.float32) / 127.5 - 1
        net.set_tensor(port, pixels)
        net.invoke()
        boxes, classes, scores, _ = (net.get_tensor(output["index"]) for output in outputs)
        return boxes[0], np.where(classes[0] == 0, scores[0], 0)

    def network(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        boxes, scores = zip(*map(one, squares), strict=True)
        return np.stack(boxes), np.stack(scores)

    return network
