"""Small ONNX detectors of random weights, with the outputs of each format."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)


class Graph:
    """Nodes of a network that computes random numbers from the means of its image."""

    def __init__(
        self, seed: int, size: tuple[int, int], dynamic: bool = False, white: int = 1
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.outputs = [], [], []
        shape = [1, 3, *(("h", "w") if dynamic else size)]
        self.inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)]
        shares = self.times("images", 1 / white)
        self.add("GlobalAveragePool", shares, out="mean")
        self.add("Flatten", "mean", out="channels")

    def add(self, kind: str, *inputs: str, out: str = "", **attributes) -> str:
        out = out or f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    def constant(self, values) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def numbers(self, *shape: int, scale: float = 1) -> str:
        """Return the name of random numbers (1, …) that depend on the image."""
        weights = self.rng.normal(0, scale, (3, int(np.prod(shape)))).astype(np.float32)
        bias = self.rng.normal(0, scale, int(np.prod(shape))).astype(np.float32)
        product = self.add("MatMul", "channels", self.constant(weights))
        summed = self.add("Add", product, self.constant(bias))
        return self.add("Reshape", summed, self.constant(np.array([1, *shape], np.int64)))

    def fractions(self, *shape: int) -> str:
        return self.add("Sigmoid", self.numbers(*shape, scale=2))

    def times(self, name: str, values) -> str:
        return self.add("Mul", name, self.constant(np.asarray(values, np.float32)))

    def output(self, name: str, source: str, kind: int = TensorProto.FLOAT) -> None:
        self.add("Identity", source, out=name)
        self.outputs.append(helper.make_tensor_value_info(name, kind, None))

    def save(self, path, **metadata: object) -> None:
        graph = helper.make_graph(self.nodes, "net", self.inputs, self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
        onnx.save(model, path)


def cell_count(size, strides=STRIDES) -> int:
    return sum((size[0] // s) * (size[1] // s) for s in strides)


def write(layout: str, path, size=(64, 96), seed=0, classes=3, dynamic=False, **metadata) -> None:
    """Write a detector with the outputs of a layout, a key of `LAYOUTS`."""
    graph = Graph(seed, size, dynamic, 255 if layout.startswith("yolox") else 1)
    LAYOUTS[layout](graph, size, classes)
    graph.save(path, **metadata)


def _yolo(graph, size, classes):
    count = cell_count(size)
    boxes = graph.times(graph.fractions(4, count), [[size[1]], [size[0]]] * 2)
    graph.output("output0", graph.add("Concat", boxes, graph.fractions(classes, count), axis=1))


def _labels(graph, count, classes):
    scaled = graph.times(graph.fractions(count, 1), classes)
    return graph.add("Floor", scaled)


def _yolo_nms(graph, size, classes):
    start = graph.times(graph.fractions(20, 2), [size[1] / 2, size[0] / 2])
    sides = graph.times(graph.fractions(20, 2), [size[1] / 2, size[0] / 2])
    parts = [start, graph.add("Add", start, sides), graph.fractions(20, 1)]
    graph.output("output0", graph.add("Concat", *parts, _labels(graph, 20, classes), axis=2))


def _yolox(graph, size, classes, strides=STRIDES):
    count = cell_count(size, strides)
    parts = graph.numbers(count, 4, scale=0.5), graph.fractions(count, 1 + classes)
    graph.output("output", graph.add("Concat", *parts, axis=2))


def _yolox_p6(graph, size, classes):
    _yolox(graph, size, classes, (*STRIDES, 64))


def _rtdetr(graph, size, classes):
    sizes = helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [1, 2])
    graph.inputs.append(sizes)
    tiles = graph.constant(np.array([1, 2], np.int64))
    whole = graph.add("Cast", graph.add("Tile", "orig_target_sizes", tiles), to=TensorProto.FLOAT)
    start = graph.times(graph.fractions(20, 2), 0.5)
    end = graph.add("Add", start, graph.times(graph.fractions(20, 2), 0.5))
    corners = graph.add("Mul", graph.add("Concat", start, end, axis=2), whole)
    flat = graph.constant(np.array([1, 20], np.int64))
    labels = graph.add("Reshape", _labels(graph, 20, classes), flat)
    graph.output("labels", graph.add("Cast", labels, to=TensorProto.INT64), TensorProto.INT64)
    graph.output("boxes", corners)
    graph.output("scores", graph.fractions(20))


def _rtdetr_logits(graph, size, classes):
    graph.output("logits", graph.numbers(20, classes))
    graph.output("pred_boxes", graph.fractions(20, 4))


def _rtdetr_joined(graph, size, classes):
    parts = graph.fractions(20, 4), graph.fractions(20, classes)
    graph.output("output0", graph.add("Concat", *parts, axis=2))


def _rtdetr_best(graph, size, classes):
    parts = graph.fractions(20, 4), graph.fractions(20, 1), _labels(graph, 20, classes)
    graph.output("output0", graph.add("Concat", *parts, axis=2))


LAYOUTS = {
    "yolo": _yolo,
    "yolo_nms": _yolo_nms,
    "yolox": _yolox,
    "yolox_p6": _yolox_p6,
    "rtdetr": _rtdetr,
    "rtdetr_logits": _rtdetr_logits,
    "rtdetr_joined": _rtdetr_joined,
    "rtdetr_best": _rtdetr_best,
}
