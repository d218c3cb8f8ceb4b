"""Miners compared with loops, and soft weights by hand."""

import catalogue
import numpy as np
import pytest
import tensorflow as tf

from keras_reid import mining
from keras_reid.errors import InputError

ALL = pytest.mark.parametrize("name", catalogue.MINERS)


def masks(labels):
    same = labels[:, None] == labels[None, :]
    return same & ~np.eye(len(labels), dtype=bool), ~same


def line(points):
    points = np.array(points, "float32")
    return np.abs(points[:, None] - points[None, :])


def comparisons(mined):
    """The valid (d⁺, d⁻), in the order of the anchors."""
    columns = np.broadcast_arrays(*(np.array(column) for column in mined))
    return np.stack(columns[:2], axis=-1)[columns[2]]


def test_miners_every_entry_is_catalogued():
    assert catalogue.MINERS.keys() == mining.MINERS.keys()


@ALL
@pytest.mark.parametrize("seed", range(20))
def test_miners_random_batch_matches_loops(name, seed):
    mine, truth = catalogue.MINERS[name]
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(1, 6), size=9)
    x = rng.normal(size=(9, 3)).astype("float32")
    distances = np.linalg.norm(x[:, None] - x[None, :], axis=-1)
    found = comparisons(mine(distances, *masks(labels)))
    np.testing.assert_allclose(found, np.reshape(truth(distances, labels), (-1, 2)), rtol=1e-5)


@ALL
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2]], ids=["one identity", "all lone"])
def test_miners_without_positive_or_negative_mark_nothing_valid(name, labels):
    mine, _ = catalogue.MINERS[name]
    mined = mine(line([0, 1, 5]), *masks(np.array(labels)))
    assert not np.any(mined.valid)
    assert np.all(np.isfinite(mined.positive))
    assert np.all(np.isfinite(mined.negative))


@pytest.mark.first(2)
@ALL
def test_miners_eager_graph_and_xla_gradients_agree(name):
    mine, _ = catalogue.MINERS[name]
    labels = np.repeat(np.arange(3), 3)
    distances = np.random.default_rng(0).uniform(1, 2, (9, 9)).astype("float32")

    def slope(distances):
        with tf.GradientTape() as tape:
            tape.watch(distances)
            mined = mine(distances, *masks(labels))
            total = tf.reduce_sum(tf.where(mined.valid, mined.positive - 2 * mined.negative, 0))
        return tf.convert_to_tensor(tape.gradient(total, distances))

    eager = slope(tf.constant(distances))
    graph = tf.function(slope, [tf.TensorSpec((None, None))], autograph=False)(distances)
    xla = tf.function(slope, jit_compile=True, autograph=False)(distances)
    np.testing.assert_allclose(graph, eager, rtol=1e-6)
    np.testing.assert_allclose(xla, eager, rtol=1e-5, atol=1e-7)


def test_farthest_and_nearest_ties_return_first_in_mask():
    mask = np.array([[True, True, True, False], [False, False, True, True]])
    distances = np.array([[1.0, 2, 2, 9], [0, 2, 3, 3]], "float32")
    np.testing.assert_array_equal(mining.farthest(distances, mask), [1, 2])
    np.testing.assert_array_equal(mining.nearest(distances, mask), [0, 2])


def test_nearest_pair_returns_row_and_column():
    distances = np.array([[0.0, 5, 4], [7, 1, 3]], "float32")
    mask = np.array([[False, True, True], [True, False, True]])
    row, column = mining.nearest_pair(distances, mask)
    assert (int(row[0]), int(column[0])) == (1, 2)


def test_batch_hard_read_function_returns_other_distances():
    """One distance chooses, another is returned."""
    chosen_by = line([0, 3, 4, 9])
    read = mining.entries(10 * chosen_by)
    mined = mining.batch_hard(chosen_by, *masks(np.array([0, 0, 1, 1])), read)
    np.testing.assert_array_equal(mined.positive, [30, 30, 50, 50])
    np.testing.assert_array_equal(mined.negative, [40, 10, 10, 60])


def test_semi_hard_returns_expected_pairs():
    """The nearest negative beyond the positive, else the farthest one."""
    mined = mining.semi_hard(line([0, 3, 4, 8]), *masks(np.array([0, 0, 1, 1])))
    np.testing.assert_array_equal(comparisons(mined), [(3, 4), (3, 5), (4, 4), (4, 5)])


def test_every_anchor_miners_mark_all_anchors_valid():
    positive, negative = masks(np.array([0, 0, 1]))
    mined = mining.batch_hard_of_every_anchor(line([0, 1, 5]), positive, negative)
    np.testing.assert_array_equal(mined.positive, [1, 1, 0])
    np.testing.assert_array_equal(mined.negative, [5, 4, 4])
    assert np.all(mined.valid)
    alone = mining.batch_hard_of_every_anchor(line([0, 1]), *masks(np.array([0, 0])))
    np.testing.assert_array_equal(alone.negative, alone.positive)
    semi = mining.semi_hard_of_every_anchor(line([0, 1]), *masks(np.array([0, 0])))
    np.testing.assert_array_equal(comparisons(semi), [(1, 0), (1, 0)])


def test_softest_returns_softmax_over_mask():
    logarithms = np.log(np.array([[4, 2, 2, 100], [1, 1, 1, 1]], "float32"))
    mask = np.array([[True, True, True, False], [False] * 4])
    weights = mining.softest(logarithms, mask)
    np.testing.assert_allclose(weights, [[0.5, 0.25, 0.25, 0], [0, 0, 0, 0]], rtol=1e-6)


def test_softest_large_distances_returns_one_hot():
    weights = mining.softest(np.array([[1e6, 2e6, 5e5]], "float32"), np.ones((1, 3), bool))
    np.testing.assert_array_equal(weights, [[0, 1, 0]])


def test_soft_hard_hinge_matches_expected_mean():
    mined = mining.batch_soft()(line([0, 1, 3, 4, 6, 10]), *masks(np.repeat([0, 1], 3)))
    hinge = np.maximum(np.array(mined.positive) - np.array(mined.negative) + 1, 0)
    np.testing.assert_allclose(hinge.mean(), 1.5768181834050239, rtol=1e-6)


def test_soft_hard_weights_have_no_gradient():
    """`∂ (S − T)` of anchor 0 is exactly its weights, not the slope through the softmax too."""
    with tf.GradientTape() as tape:
        distances = tf.constant(line([0, 1, 3, 4, 6, 10]))
        tape.watch(distances)
        mined = mining.batch_soft()(distances, *masks(np.repeat([0, 1], 3)))
        excess = mined.positive[0] - mined.negative[0]
    expected = [0, 0.1192, 0.8808, -0.8789, -0.1189, -0.0022]
    np.testing.assert_allclose(tape.gradient(excess, distances)[0], expected, atol=5e-5)


def test_margin_sample_returns_expected_pair():
    """The farthest positive pair is (4, 9) and the nearest negative (3, 4), for every anchor."""
    mined = mining.margin_sample(line([0, 3, 4, 9]), *masks(np.array([0, 0, 1, 1])))
    np.testing.assert_array_equal(mined.positive, [5, 5, 5, 5])
    np.testing.assert_array_equal(mined.negative, [1, 1, 1, 1])


def test_all_triplets_hinge_matches_expected_means():
    found = comparisons(mining.all_triplets(line([0, 3, 4, 9]), *masks(np.array([0, 0, 1, 1]))))
    hinge = np.maximum(found[:, 0] - found[:, 1] + 1, 0)
    assert hinge.mean() == pytest.approx(1.25)
    assert hinge[hinge > 0].mean() == pytest.approx(10 / 3)


def test_get_name_or_function_returns_miner():
    assert mining.get("batch_hard") is mining.batch_hard
    assert mining.get(len) is len


def test_get_unknown_name_raises_with_known_names():
    with pytest.raises(InputError, match=r"batch_all, batch_hard, batch_soft, .*, got 'semi'"):
        mining.get("semi")
