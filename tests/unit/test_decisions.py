"""Verification, thresholds and open-set identification, compared with plain loops."""

import json
import re
from dataclasses import asdict

import numpy as np
import oracle_decisions as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from keras_reid.errors import InputError
from keras_reid.evaluation import Labels, Threshold, compare, open_set, pairs, verify

trials = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 9).map(lambda v: v / 4), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda s: any(s) and not all(s)),
    )
)


def test_verify_worked_example_matches_known_rates():
    result = verify([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1, 1, 0, 1, 0, 0])
    assert result.tar_at_far(0) == pytest.approx(2 / 3)
    assert result.tar_at_far(1 / 3) == 1
    assert result.eer == pytest.approx(1 / 3)
    assert result.auc == pytest.approx(8 / 9)


@settings(deadline=None)
@given(trials, st.floats(0, 1))
def test_verify_rates_match_oracle(trial, far):
    distances, same = trial
    result = verify(np.array(distances), np.array(same))
    assert result.auc == pytest.approx(oracle.auc(distances, same))
    assert result.eer == pytest.approx(oracle.eer(distances, same))
    impostors = same.count(False)
    for rate in (0.0, 1.0, far, *(i / impostors for i in range(impostors))):
        if 0 < rate < 1 / impostors:
            with pytest.raises(InputError, match="impostor trials"):
                result.tar_at_far(rate)
            continue
        assert result.tar_at_far(rate) == pytest.approx(oracle.tar_at_far(distances, same, rate))
        threshold = result.threshold_at_far(rate)
        assert threshold.value == oracle.threshold_at_far(distances, same, rate)
        assert threshold.measured_far <= rate
        assert threshold.measured_far == oracle.rates(distances, same, threshold.value)[0]


@settings(deadline=None)
@given(trials)
def test_verify_roc_matches_scikit_learn(trial):
    distances, same = np.array(trial[0]), np.array(trial[1])
    threshold, far, tar = verify(distances, same).roc()
    theirs = roc_curve(same, -distances, drop_intermediate=False)
    np.testing.assert_allclose(far, theirs[0])
    np.testing.assert_allclose(tar, theirs[1])
    np.testing.assert_allclose(threshold, -theirs[2])
    assert verify(distances, same).auc == pytest.approx(roc_auc_score(same, -distances))


def test_verify_far_below_resolution_is_not_resolvable():
    random = np.random.default_rng(0)
    result = verify(random.random(300), np.arange(300) < 100)
    assert re.search(r"^TAR at FAR 0.01 +\d+\.\d\d %$", str(result), re.MULTILINE)
    assert re.search(
        "^TAR at FAR 0.001 +not resolvable with 200 impostor pairs$", str(result), re.M
    )
    values = json.loads(json.dumps(result.to_dict()))
    assert values["impostor_pairs"] == 200
    assert values["tar_at_far"]["0.001"] is None
    assert values["tar_at_far"]["0.01"] == result.tar_at_far(0.01)
    with pytest.raises(InputError, match=r"at least 0.005 .*200 .*, got 0.001. .* 1,000"):
        result.threshold_at_far(0.001)


@pytest.mark.parametrize(
    ("distances", "same", "message"),
    [
        ([1.0, 2.0], [True], "of the same shape"),
        ([1.0, np.nan], [True, False], "numbers without NaN"),
        ([1.0, 2.0], [True, True], "of one person and one of different persons, got 2 and 0"),
        ([1.0, 2.0], [3, 4], "booleans of the same shape"),
        (["a", "b"], [True, False], "booleans of the same shape"),
    ],
)
def test_verify_invalid_pairs_raise(distances, same, message):
    with pytest.raises(InputError, match=message):
        verify(distances, same)


@pytest.mark.parametrize("far", [-0.1, 1.1, np.nan])
def test_tar_at_far_outside_unit_interval_raises(far):
    with pytest.raises(InputError, match=r"`far` must be in \[0, 1\]"):
        verify([1, 2], [True, False]).tar_at_far(far)


def test_pairs_skip_same_camera_and_junk_images():
    query, gallery = np.eye(2, 3), np.eye(3)
    probes, enrolled = Labels([7, 8], [0, 0]), Labels([7, 7, -1], [0, 1, 1])
    distances, same = pairs((query, gallery), probes, enrolled)
    # Image 0 of person 7 in camera 0 drops out for the first query, and image 2 for both.
    np.testing.assert_allclose(distances, [2**0.5, 2**0.5, 0])
    assert same.tolist() == [True, False, False]
    cosine, _ = pairs(compare(query, gallery, "cosine"), probes, enrolled, "no-camera")
    np.testing.assert_allclose(cosine, [0, 1, 1, 0], atol=1e-7)
    given, _ = pairs(np.arange(6.0).reshape(2, 3), probes, enrolled, "no-camera")
    assert given.tolist() == [0, 1, 3, 4]
    with pytest.raises(InputError, match="one of market1501, no-camera"):
        pairs((query, gallery), probes, enrolled, "viper")


identities = st.lists(st.sampled_from([-1, 1, 2, 3]), min_size=1, max_size=8)


@settings(deadline=None)
@given(st.data())
def test_open_set_rates_match_oracle(data):
    gallery_ids = data.draw(identities)
    query_ids = data.draw(st.lists(st.sampled_from([1, 2, 3, 9]), min_size=1, max_size=8))
    shape = len(query_ids), len(gallery_ids)
    cameras = [data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in shape]
    values = st.lists(st.integers(0, 3), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    distances = np.array(data.draw(values), np.float32).reshape(shape)
    probes = oracle.open_set(distances.tolist(), query_ids, gallery_ids, *cameras)
    labels = Labels(query_ids, cameras[0]), Labels(gallery_ids, cameras[1])
    kinds = [p if p == "out" else p[0] for p in probes]
    if "known" not in kinds or "unknown" not in kinds:
        with pytest.raises(InputError, match="An open set needs"):
            open_set(distances, *labels)
        return
    result = open_set(distances, *labels)
    assert result.left_out == kinds.count("out")
    assert [("known", d, r) for d, r in zip(result.mate, result.mate_rank, strict=True)] == [
        p for p in probes if p[0] == "known"
    ]
    assert result.non_mated.tolist() == sorted(p[1] for p in probes if p[0] == "unknown")
    for far in (0, 0.5, 1):
        if far == 0.5 and len(result.non_mated) == 1:
            continue
        for rank in (1, 2):
            assert result.dir_at_far(far, rank) == oracle.dir_at_far(probes, far, rank)


def test_open_set_few_probes_are_not_resolvable():
    result = open_set(
        np.array([[0.1, 0.9], [0.3, 0.2], [0.5, 0.6]]),
        Labels([1, 2, 3]),
        Labels([1, 2]),
        "no-camera",
    )
    assert result.to_dict()["dir_at_far"] == {"0.01": None, "0.1": None}
    assert "not resolvable with so few non-mated searches" in str(result)
    assert result.dir_at_far(0) == 1
    assert result.threshold_at_far(0) == Threshold(pytest.approx(0.2), 0.0, 0.0, 1, "search")
    with pytest.raises(InputError, match="`rank` must be at least 1, got 0"):
        result.dir_at_far(0, 0)


def test_threshold_accepts_distances_and_round_trips_json():
    threshold = verify([0.1, 0.2, 0.3], [True, False, False]).threshold_at_far(0.5)
    assert threshold.value == 0.2
    assert threshold.accepts([0.2, 0.21]).tolist() == [True, False]
    assert Threshold(**json.loads(json.dumps(asdict(threshold)))) == threshold
