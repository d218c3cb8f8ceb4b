"""Comparison with values and gradients of TensorFlow Addons 0.23 from `tools/tfa_oracle.py`.

Both sides compute in float32. The points lie on a grid with an exact Gram expansion, so that only
conventions and rounding can differ. Sums and roots round. TensorFlow Addons also subtracts a row's
largest distance from every distance and adds it again, which rounds to 6e-8 of that distance. The
tolerance 1e-5 covers both. A margin that is wrong by 0.01 differs a thousand times as much.
"""

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from keras_reid.losses import ContrastiveLoss, TripletHardLoss, TripletSemiHardLoss

GOLDEN = dict(np.load(ROOT / "tests/oracles/golden/tfa.npz"))
CASES = [key.split("/")[1:5] for key in GOLDEN if key.startswith("case/") and key.endswith("value")]
TOLERANCE = 1e-5
DISTANCES = {
    "L2": "euclidean",
    "squared-L2": "squared_euclidean",
    "angular": "cosine",
    "given": "precomputed",
}


def build(loss, metric, margin):
    if loss == "contrastive":
        return ContrastiveLoss(float(margin), pairs="given", reduce_pairs="all")
    arguments = {"distance": DISTANCES[metric], "zero_for_missing": True}
    if loss == "soft":
        return TripletHardLoss("soft", **arguments)
    losses = {"hard": TripletHardLoss, "semihard": TripletSemiHardLoss}
    return losses[loss](float(margin), **arguments)


def evaluate(loss, batch):
    points = tf.constant(GOLDEN[f"batch/{batch}/inputs"])
    with tf.GradientTape() as tape:
        tape.watch(points)
        value = loss(GOLDEN[f"batch/{batch}/labels"], points)
    return value.numpy(), tf.convert_to_tensor(tape.gradient(value, points)).numpy()


def comparable(gradient, batch):
    """Defined part of a gradient: sums over equal points, without the diagonal of a matrix.

    Of coincident points either may be the hardest, and the distance of an image to itself is no
    variable.
    """
    if batch.endswith("_matrix"):
        return np.where(np.eye(len(gradient)), 0, gradient)
    points = GOLDEN[f"batch/{batch}/inputs"]
    if points.ndim == 1:
        return gradient
    first = np.unique(points, axis=0, return_inverse=True)[1].ravel()
    return np.stack([gradient[first == i].sum(0) for i in range(first.max() + 1)])


@pytest.mark.parametrize(("loss", "metric", "margin", "batch"), CASES, ids="-".join)
def test_losses_value_and_gradient_match_tensorflow_addons(loss, metric, margin, batch):
    case = f"case/{loss}/{metric}/{margin}/{batch}"
    theirs = GOLDEN[f"{case}/value"], comparable(GOLDEN[f"{case}/gradient"], batch)
    value, gradient = evaluate(build(loss, metric, margin), batch)
    if np.isnan(theirs[0]):
        # Without a positive pair theirs is 0 / 0: the one convention that is not followed.
        assert value == 0
        assert not gradient.any()
        return
    assert value == pytest.approx(theirs[0], rel=TOLERANCE)
    largest = np.abs(theirs[1]).max()
    np.testing.assert_allclose(
        comparable(gradient, batch), theirs[1], rtol=TOLERANCE, atol=TOLERANCE * (largest or 1)
    )


def test_tfa_golden_file_contains_every_case():
    """Notice cases that are lost when the file is written again."""
    assert len(CASES) == 174
    assert {loss for loss, *_ in CASES} == {"hard", "soft", "semihard", "contrastive"}
    assert {metric for _, metric, *_ in CASES} == set(DISTANCES)


def test_triplet_hard_default_ignores_lone_anchors():
    """`zero_for_missing` is not the default, and changes the batch with lone anchors."""
    theirs = GOLDEN["case/hard/L2/1.0/lone/value"]
    value, _ = evaluate(TripletHardLoss(1.0), "lone")
    assert value != pytest.approx(theirs, rel=0.01)
