"""Networks of other programs, for tests."""

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_rows(file: Path, shape: list[int | str]) -> Path:
    """Write an ONNX file of float images `nchw` → the means of their rows, flattened."""
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["rows"], axes=[3], keepdims=0),
        helper.make_node("Flatten", ["rows"], ["out"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [shape[0], None])
    graph = helper.make_graph(nodes, "rows", [image], [out])
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), file)
    return file
