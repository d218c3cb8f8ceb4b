"""Record losses and gradients of TensorFlow Addons for `tests/conformance/test_tfa.py`.

TensorFlow Addons is discontinued and cannot be imported with the TensorFlow that this package
needs. Create a separate environment on Python 3.9 to 3.11:

    python3.11 -m venv /tmp/tfa
    /tmp/tfa/bin/pip install "tensorflow==2.15.*" "tensorflow-addons==0.23.*" "numpy<2"
    /tmp/tfa/bin/python tools/tfa_oracle.py tests/oracles/golden/tfa.npz

The same versions on the same processor write the same bytes. Arrays of the file:

- `versions`: package and version, one string each;
- `batch/NAME/labels` (b,) and `batch/NAME/inputs`: embeddings (b, d), or distances (b, b) where
  NAME ends in `_matrix`, or distances of given pairs (b,) where it starts with `pairs`;
- `case/LOSS/METRIC/MARGIN/NAME/value` () and `…/gradient`, of the shape of the inputs.

LOSS is hard, soft, semihard or contrastive, METRIC a `distance_metric` of TensorFlow Addons or
given; MARGIN is as the loss got it, and `-` where it has none.
"""

import itertools
import os
import sys
from importlib import metadata
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa

PACKAGES = ("tensorflow", "tensorflow-addons", "keras", "numpy")
MARGINS = ("1.0", "0.3")
METRICS = ("L2", "squared-L2", "angular")
# Images of each identity.
BATCHES = {
    "balanced": (4, 4, 4, 4),
    "unbalanced": (2, 3, 5, 4),
    "lone": (1, 3, 1, 2, 1, 4),
    "all_lone": (1,) * 5,
    "one_identity": (6,),
    "one_image": (1,),
}
# Powers of two keep exact numbers exact.
SCALES = {"large": 2.0**10, "small": 2.0**-10}


def main(path: Path) -> None:
    tf.config.experimental.enable_op_determinism()
    tf.get_logger().setLevel("ERROR")  # TensorFlow warns because each loss is traced again.
    inputs = dict(batches(np.random.default_rng(20)))
    arrays = {"versions": np.array([f"{name} {metadata.version(name)}" for name in PACKAGES])}
    for name, (labels, points) in inputs.items():
        arrays[f"batch/{name}/labels"] = labels
        arrays[f"batch/{name}/inputs"] = points
        for loss, metric, margin in cases(name):
            value, gradient = evaluate(build(loss, metric, margin), labels, points)
            case = f"case/{loss}/{metric}/{margin}/{name}"
            arrays[f"{case}/value"], arrays[f"{case}/gradient"] = value, gradient
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def batches(rng):
    """Return name and (labels, inputs) of each batch."""
    for name, counts in BATCHES.items():
        labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype("int32")
        yield name, (labels, exact_points(rng, labels.size))
        yield f"{name}_matrix", (labels, matrix(rng, labels.size))
    labels = np.repeat(np.arange(4), 4).astype("int32")
    for name, scale in SCALES.items():
        yield name, (labels, np.float32(scale) * exact_points(rng, labels.size))
    unit = rng.normal(size=(16, 32))
    yield "unit", (labels, (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype("float32"))
    # One image twice within an identity, another one in two identities.
    rows = [0, 0, 1, 2, 3, 4, 5, 6, 6, 7, 8, 9, 10, 11, 12, 13]
    yield "duplicates", (labels, exact_points(rng, labels.size)[rows])
    same = rng.integers(0, 2, 24).astype("int32")
    yield "pairs", (same, rng.uniform(0, 2, same.size).astype("float32"))


def cases(name):
    """Return (loss, metric, margin) of each case of a batch."""
    if name.startswith("pairs"):
        yield from itertools.product(["contrastive"], ["given"], MARGINS)
        return
    # The cosine of an image with its copy is 1 but for rounding, which decides who is hardest.
    metrics = [m for m in METRICS if (name, m) != ("duplicates", "angular")]
    metrics = ["given"] if name.endswith("_matrix") else metrics
    yield from itertools.product(["hard", "semihard"], metrics, MARGINS)
    # Their soft margin is log(1 + exp(d)), which is infinite from d = 89 on.
    yield from itertools.product(["soft"], [m for m in metrics if name != "large"], "-")


def build(loss, metric, margin):
    if loss == "contrastive":
        return tfa.losses.ContrastiveLoss(float(margin))
    metric = tf.identity if metric == "given" else metric
    if loss == "soft":
        return tfa.losses.TripletHardLoss(soft=True, distance_metric=metric)
    losses = {"hard": tfa.losses.TripletHardLoss, "semihard": tfa.losses.TripletSemiHardLoss}
    return losses[loss](float(margin), distance_metric=metric)


def evaluate(loss, labels, points):
    points = tf.constant(points)
    with tf.GradientTape() as tape:
        tape.watch(points)
        value = loss(tf.constant(labels), points)
    return value.numpy(), tape.gradient(value, points).numpy()


def exact_points(rng, count):
    """Return multiples of 1/128 `(count, 8)` with different distances from each point.

    Their squares and products are exact in float32, and so is the Gram expansion of TensorFlow
    Addons: what differs is then a convention, and not rounding.
    """
    while True:
        steps = rng.integers(-64, 65, (count, 8))
        squared = ((steps[:, None] - steps[None, :]) ** 2).sum(-1)
        if all(np.unique(row).size == count for row in squared):
            return (steps / 128).astype("float32")


def matrix(rng, count):
    """Return a symmetric matrix `(count, count)` of different distances with diagonal 0."""
    upper = np.triu(rng.uniform(0.1, 2, (count, count)), 1)
    return (upper + upper.T).astype("float32")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
