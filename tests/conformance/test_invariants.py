"""Relations between losses and invariances of each loss, on random batches."""

import math
from functools import partial

import catalogue
import numpy as np
import oracle
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reid import losses

SEEDS = st.integers(0, 10_000)
MARGIN = 0.7
few = settings(max_examples=6, deadline=None)

# Unsquared distances on embeddings as they are: these losses grow with the embeddings.
UNSQUARED = [
    name
    for name, case in catalogue.LOSSES.items()
    if case.metric
    and case.homogeneous
    and case.loss().get_config()["distance"] == "euclidean"
    and not case.loss().get_config()["normalize"]
]


def balanced(seed, identities=4, instances=3, width=5):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), instances)
    centers = rng.normal(size=(identities, width))
    x = centers[labels] + rng.uniform(0.1, 1.5) * rng.normal(size=(len(labels), width))
    return labels, x.astype("float32")


def value(build, seed, margin=MARGIN, batch=balanced, **more):
    return float(build(margin, **more)(*batch(seed)))


euclidean = {"distance": "euclidean", "normalize": False}


@few
@given(SEEDS)
def test_losses_with_harder_mining_have_larger_values(seed):
    """MSML ≥ max_a BH_a ≥ BH ≥ soft-hard, BH ≥ batch-all ≤ nonzero, lifted ≥ BH, for equal K."""
    of = partial(value, seed=seed)
    by_anchor = losses.TripletHardLoss(MARGIN, reduction=None)(*balanced(seed))
    hard, every = of(losses.TripletHardLoss), of(losses.TripletLoss)
    slack = 1e-5
    assert of(losses.MarginSampleMiningLoss) >= float(np.max(by_anchor)) - slack
    assert float(np.max(by_anchor)) >= hard - slack
    assert hard >= of(losses.SoftTripletHardLoss) - slack
    assert hard >= every - slack
    assert of(losses.TripletLoss, nonzero=True) >= every - slack
    assert of(losses.LiftedStructureLoss) >= hard - slack


@few
@given(SEEDS)
def test_quadruplet_loss_is_at_least_triplet_hard_loss(seed):
    four = partial(value, losses.QuadrupletLoss, seed, margin2=0.3, **euclidean)
    assert four() >= value(losses.TripletHardLoss, seed) - 1e-5
    pair = partial(balanced, identities=2)
    hard = value(losses.TripletHardLoss, seed, batch=pair)
    assert four(batch=pair) == pytest.approx(hard, rel=1e-6)


@few
@given(SEEDS)
def test_improved_quadruplet_zero_weight_equals_quadruplet_loss(seed):
    union = value(losses.ImprovedQuadrupletLoss, seed, margin2=0.3, weight=0.0, **euclidean)
    four = value(losses.QuadrupletLoss, seed, margin2=0.3, **euclidean)
    assert union == pytest.approx(four, rel=1e-6)


@few
@given(SEEDS)
def test_triplet_hard_softplus_is_within_ln_2_above_hinge(seed):
    hinge = value(losses.TripletHardLoss, seed, margin=0.0)
    soft = value(losses.TripletHardLoss, seed, margin="soft")
    assert hinge - 1e-6 <= soft <= hinge + math.log(2) + 1e-6


@few
@given(SEEDS)
def test_soft_triplet_hard_temperature_limits_are_batch_hard_and_mean(seed):
    hard = value(losses.TripletHardLoss, seed)
    assert value(losses.SoftTripletHardLoss, seed, temperature=1e-4) == pytest.approx(
        hard, rel=1e-3, abs=1e-4
    )
    labels, x = balanced(seed)
    d = oracle.matrix(x, x)
    same = labels[:, None] == labels
    positive = np.where(same & ~np.eye(len(x), dtype=bool), d, 0).sum(1) / 2
    negative = np.where(~same, d, 0).sum(1) / (len(x) - 3)
    mean = np.maximum(positive - negative + MARGIN, 0).mean()
    assert value(losses.SoftTripletHardLoss, seed, temperature=1e5) == pytest.approx(
        mean, rel=1e-3, abs=1e-4
    )


@pytest.mark.first(5)
@pytest.mark.parametrize("name", UNSQUARED)
@few
@given(SEEDS)
def test_losses_rotated_and_shifted_embeddings_keep_value(name, seed):
    loss = catalogue.LOSSES[name].loss()
    labels, x = balanced(seed)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))
    moved = (x @ turn + 3).astype("float32")
    assert float(loss(labels, moved)) == pytest.approx(float(loss(labels, x)), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("scale", [0.01, 3.0, 1000.0])
@pytest.mark.parametrize(
    ("build", "lengths"),
    [
        (losses.TripletHardLoss, ()),
        (losses.TripletLoss, ()),
        (losses.TripletSemiHardLoss, ()),
        (losses.MarginSampleMiningLoss, ()),
        (partial(losses.ImprovedTripletLoss, weight=0.5, **euclidean), ("pull",)),
        (partial(losses.QuadrupletLoss, **euclidean), ("margin2",)),
        (partial(losses.ContrastiveLoss, form="linear", normalize=False), ()),
    ],
)
def test_losses_scaled_embeddings_and_margins_scale_value(build, lengths, scale):
    labels, x = balanced(1)
    own = dict.fromkeys(lengths, 0.4)
    scaled = dict.fromkeys(lengths, 0.4 * scale)
    once = float(build(MARGIN, **own)(labels, x))
    assert float(build(MARGIN * scale, **scaled)(labels, scale * x)) == pytest.approx(
        scale * once, rel=1e-5
    )
    assert once > 0


@pytest.mark.parametrize(
    "build",
    [
        losses.TripletHardLoss,
        losses.TripletLoss,
        losses.TripletSemiHardLoss,
        losses.MarginSampleMiningLoss,
        partial(losses.ImprovedTripletLoss, pull=2.0, **euclidean),
        partial(losses.QuadrupletLoss, margin2=0.1, **euclidean),
    ],
)
def test_losses_margin_satisfied_is_exactly_zero(build):
    """The nearest negative is 5 away, the farthest positive 1."""
    labels, line = np.repeat([0, 1, 2], 2), np.array([0, 1, 6, 7, 12, 13], "float32")[:, None]
    assert float(build(margin=3.9)(labels, line)) == 0
    assert float(build(margin=4.1)(labels, line)) > 0


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (losses.TripletHardLoss, MARGIN),
        (losses.TripletLoss, MARGIN),
        (losses.TripletSemiHardLoss, MARGIN),
        (losses.SoftTripletHardLoss, MARGIN),
        (losses.MarginSampleMiningLoss, MARGIN),
        (losses.ImprovedTripletLoss, MARGIN),
        (losses.ContrastiveLoss, MARGIN**2),
        (partial(losses.QuadrupletLoss, margin2=0.3), MARGIN + 0.3),
        (losses.LiftedStructureLoss, math.log(3) + math.log(4 * 3) + MARGIN),
    ],
)
def test_losses_collapsed_embeddings_equal_collapse_value(build, expected):
    loss = build(MARGIN)
    labels = np.repeat(np.arange(4), 4)
    assert loss.collapse_value(4, 4) == pytest.approx(expected, rel=1e-5)
    equal = tf.Variable(np.full((16, 3), 0.5, "float32"))
    with tf.GradientTape() as tape:
        cost = loss(labels, equal)
    assert float(cost) == pytest.approx(expected, rel=1e-5)
    assert np.all(np.isfinite(tape.gradient(cost, equal)))


@pytest.mark.parametrize("build", [losses.TripletHardLoss, losses.TripletLoss])
def test_triplet_losses_softplus_collapse_value_is_ln_2(build):
    assert build("soft").collapse_value() == pytest.approx(math.log(2), rel=1e-6)
