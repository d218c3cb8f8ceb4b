"""Formats and quantizations of exports, by the names that flags use."""

FORMATS = ("saved_model", "onnx", "litert", "openvino")

# By quantization: largest difference of a component of an embedding, and loss of mAP or rank-1.
# Embeddings of 8 bits differ visibly, so only their loss counts.
TOLERANCES = {"float32": (1e-4, 1e-3), "float16": (1e-2, 2.5e-2), "int8": (1.0, 5e-2)}
QUANTIZATIONS = tuple(TOLERANCES)
