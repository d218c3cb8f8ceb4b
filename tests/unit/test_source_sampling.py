"""PK sampling of several sources: shares in an epoch, and batches of one or of all sources."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_reid.data.images import PersonImages
from keras_reid.data.sampling import EpochPlan, epoch_rows, pk_rows, pk_steps, plan_of
from keras_reid.data.shares import ONE, Shares, shares_of
from keras_reid.errors import InputError


def images_of(*sizes):
    """Images of sources, each with the numbers of images of its identities."""
    identity, source = [], []
    for number, counts in enumerate(sizes):
        for person, count in enumerate(counts):
            identity += [f"{number}/{person}"] * count
            source += [f"s{number}"] * count
    paths = [f"{i}.jpg" for i in range(len(identity))]
    return PersonImages(paths, identity, None, {"source": np.array(source)})


def epoch_of(images, plan, epoch=0, seed=3):
    """Indices of identities (B, P) and of sources (B, P) of an epoch, after checks of PK."""
    classes = images.classes()[1]
    rows = epoch_rows(classes, plan, seed, epoch).numpy()
    grouped = classes[rows].reshape(plan.batches, -1, plan.num_instances)
    assert (grouped == grouped[..., :1]).all()
    identities = grouped[..., 0]
    assert all(len(set(batch)) == len(batch) for batch in identities)
    sources = np.unique(images.columns["source"], return_inverse=True)[1]
    return identities, sources[rows].reshape(grouped.shape)[..., 0]


@st.composite
def cases(draw):
    counts = st.lists(st.integers(1, 9) | st.integers(1, 40), min_size=3, max_size=9)
    sizes = draw(st.lists(counts, min_size=1, max_size=4))
    sampling = draw(st.sampled_from(["proportional", "balanced", "sqrt"]))
    last = draw(st.sampled_from(["fill", "drop"]))
    return sizes, draw(st.integers(1, 3)), draw(st.integers(1, 4)), last, sampling


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from(["mixed", "single"]))
def test_epoch_rows_sources_keep_batches_of_distinct_identities(case, batches):
    sizes, p, k, last, sampling = case
    images = images_of(*sizes)
    plan = plan_of(images, p, k, last, sampling, batches)
    if not plan.batches:  # too few images for one batch with "drop"
        return
    _, sources = epoch_of(images, plan)
    if batches == "single":
        assert (sources == sources[:, :1]).all()
        assert set(sources.ravel()) == set(range(len(sizes)))
        if last == "fill":
            assert plan.batches == plan_of(images, p, k, last).batches
    if plan.shares:
        places = np.bincount(sources.ravel(), minlength=len(sizes))
        exact = np.bincount(plan.shares.source, plan.shares.share / ONE)
        np.testing.assert_array_equal(places, exact)


def test_epoch_rows_balanced_gives_equal_places_and_mixed_batches():
    images = images_of([4] * 90, [4] * 10)
    plan = plan_of(images, 10, 4, "fill", "balanced")
    assert plan.batches == pk_steps(images, 10, 4) == 10
    for epoch in range(3):
        identities, sources = epoch_of(images, plan, epoch)
        assert (sources.sum(axis=1) == 5).all()
        assert (np.bincount(identities.ravel())[90:] == 5).all()


def test_epoch_rows_sqrt_is_between_proportional_and_balanced():
    images = images_of([4] * 80, [4] * 20)
    places = {}
    for sampling in ("proportional", "sqrt", "balanced"):
        _, sources = epoch_of(images, plan_of(images, 10, 4, "fill", sampling, "single"))
        places[sampling] = sources.sum()
    assert places == {"proportional": 20, "sqrt": 30, "balanced": 50}


def test_epoch_rows_fractional_shares_reach_all_identities_equally():
    images = images_of([4] * 60, [8] * 5)
    plan = plan_of(images, 10, 4, "fill", "balanced")
    counts = np.zeros(65)
    for epoch in range(60):
        identities, _ = epoch_of(images, plan, epoch)
        counts += np.bincount(identities.ravel(), minlength=65)
    # 35 places for 60 identities, and 35 for 5 identities, in each of 60 epochs.
    assert counts[:60].sum() == counts[60:].sum() == 35 * 60
    assert 20 <= counts[:60].min() <= 35 <= counts[:60].max() <= 50
    assert (counts[60:] == 7 * 60).all()


def test_epoch_rows_unequal_fractional_shares_are_unbiased():
    shares = Shares(np.zeros(2, int), np.array([ONE // 5, ONE - ONE // 5]), (1,))
    plan = EpochPlan(1, 1, 1, np.ones(2, int), 0, shares)
    rows = [epoch_rows(np.arange(2), plan, 3, epoch).numpy().item() for epoch in range(300)]
    assert 0.7 < np.mean(rows) < 0.9


def test_epoch_rows_few_identities_have_at_most_one_place_per_batch():
    images = images_of([4] * 40, [40] * 2)
    _, sources = epoch_of(images, plan_of(images, 10, 4, "fill", "balanced"))
    assert (sources.sum(axis=1) == 2).all()


def test_epoch_rows_single_dominant_source_leaves_others_one_batch():
    images = images_of([400, 4, 4], [4] * 3)
    plan = plan_of(images, 3, 4, "drop", "proportional", "single")
    assert plan.blocks == (1, 1)
    epoch_of(images, plan)


def test_epoch_rows_single_batches_of_sources_are_in_random_order():
    images = images_of([4] * 50, [4] * 50)
    plan = plan_of(images, 5, 4, "fill", "proportional", "single")
    orders = [epoch_of(images, plan, epoch)[1][:, 0].tolist() for epoch in range(2)]
    assert orders[0] != orders[1]
    assert all(order not in (sorted(order), sorted(order, reverse=True)) for order in orders)


@pytest.mark.parametrize("batches", ["mixed", "single"])
def test_pk_rows_sources_resume_at_any_epoch(batches):
    images = images_of([5, 9, 4, 7], [6, 1, 3])
    plan = plan_of(images, 3, 2, "fill", "sqrt", batches)
    classes = images.classes()[1]
    whole = pk_rows(classes, plan, 8).skip(2 * plan.batches).take(plan.batches)
    later = pk_rows(classes, plan, 8, first_epoch=2).take(plan.batches)
    for first, second in tf.data.Dataset.zip((whole, later)):
        np.testing.assert_array_equal(first, second)


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from(["mixed", "single"]))
def test_shares_are_proportional_up_to_one_place_per_batch(case, batches):
    sizes, p, k, _, sampling = case
    groups = -(-np.concatenate(sizes) // k)
    source = np.repeat(np.arange(len(sizes)), [len(counts) for counts in sizes])
    size = p, max(int(groups.max()), -(-int(groups.sum()) // p))
    shares = shares_of(groups, source, size, sampling, batches)
    blocks = np.array(shares.blocks)
    assert shares.share.sum() == p * blocks.sum() * ONE
    for number in range(len(sizes)):
        most = blocks[number if batches == "single" else 0]
        own, n = shares.share[source == number] / ONE, groups[source == number]
        assert own.max() <= most
        free = own < most - 1e-5
        np.testing.assert_allclose((own / n)[free], (own / n).max(initial=0, where=free), atol=1e-5)


def test_plan_of_sources_invalid_values_raise():
    images = images_of([4] * 5, [4] * 2)
    with pytest.raises(InputError, match="got 2 in one source, for batches of 3 identities"):
        plan_of(images, 3, 4, "fill", "proportional", "single")
    with pytest.raises(InputError, match=r"`source_sampling` must be one of prop.*got 'all'"):
        plan_of(images, 3, 4, "fill", "all")
    with pytest.raises(InputError, match="`source_batches` must be one of mixed, single, got 'x'"):
        plan_of(images, 3, 4, "fill", "sqrt", "x")
    alone = images.without("source")
    with pytest.raises(InputError, match="`source_sampling` must be proportional for images of"):
        plan_of(alone, 3, 4, "fill", "sqrt")
    with pytest.raises(InputError, match="`source_batches` must be mixed for images of one"):
        plan_of(alone, 3, 4, "fill", "proportional", "single")
