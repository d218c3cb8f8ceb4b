"""Names of export formats and quantizations."""

FORMATS = ("saved_model", "onnx", "litert", "openvino")

# Tolerances of a quantization: difference of one component of an embedding, loss of mAP or rank-1.
# Embeddings of int8 differ from the original, so only the loss is limited.
TOLERANCES = {"float32": (1e-4, 1e-3), "float16": (1e-2, 2.5e-2), "int8": (1.0, 5e-2)}
QUANTIZATIONS = tuple(TOLERANCES)
