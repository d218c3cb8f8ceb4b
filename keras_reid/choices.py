"""The words that options take for what Keras or TensorFlow is needed for.

A command checks its flags by them, and shows its help, before it imports either.
"""

METRIC_LOSSES = (
    "circle",
    "contrastive",
    "improved_quadruplet",
    "improved_triplet",
    "lifted_structure",
    "margin_sample_mining",
    "quadruplet",
    "soft_triplet_hard",
    "triplet",
    "triplet_hard",
    "triplet_semi_hard",
)
SOFTMAX_MARGINS = ("arcface", "cosface", "sphere")
DISTILLATIONS = ("logits", "distances", "ranks")
UPDATES = ("simultaneous", "sequential")
AVERAGES = ("mean", "sum", "ensemble")

EMBEDDINGS = ("neck", "features")
STRIPE_POOLINGS = ("avg", "max")
STRIPE_ORDERS = ("conv_bn_relu", "bn_relu_conv")
# What to install for each.
TRACKERS = {"none": "", "mlflow": "mlflow", "wandb": "wandb"}

TEMPORAL_POOLINGS = ("mean", "max", "attention", "recurrent")

RERANKERS = ("k_reciprocal", "aqe", "alpha_qe", "ecn", "gnn", "diffusion")
IN_GRAPH = ("k_reciprocal", "aqe", "alpha_qe", "ecn", "gnn")  # those that can be exported

STRATEGIES = ("none", "mirrored", "multiworker")
ENGINES = ("local", "ray")
FORMATS = ("saved_model", "onnx", "litert", "openvino")
QUANTIZATIONS = ("float32", "float16", "int8")
