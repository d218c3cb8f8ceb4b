"""Match probabilities, compared with plain loops, and fitted on persons drawn from Gaussians."""

import dataclasses
import json
import math

import numpy as np
import pytest

from keras_reid.data import PersonImages
from keras_reid.errors import InputError
from keras_reid.evaluation import MatchCalibration, Protocol, fit_calibration
from keras_reid.evaluation.calibration import distances, left_out
from keras_reid.evaluation.calibration_fitting import draw_searches
from keras_reid.training import RetrievalEvaluation
from keras_reid.training.runs import Run
from keras_reid.training.scoring import Ranking

KNOWN = MatchCalibration((5, -10, 12, -0.4, -0.3), (14, -19, -1), 0.85, "an example")


def persons(seed: int, count: int = 60, images: int = 6, noise: float = 0.8, width: int = 16):
    """Unit embeddings around one direction for each person, and identities."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(rng.normal(size=(count, width)), images, axis=0)
    x = centers + noise * rng.normal(size=centers.shape)
    names = np.repeat([f"p{i}" for i in range(count)], images)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), names


@pytest.fixture(scope="module")
def fitted():
    return fit_calibration([persons(0)], "drawn persons")


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def test_probability_follows_the_formula():
    scaled = dataclasses.replace(KNOWN, scale=1.2, offset=-0.3)
    several = 5 - 10 * 0.4 + 12 * math.tanh(0.75) - 0.4 * math.log(30) - 0.3 * math.log(2.5)
    pair = 14 - 19 * 0.4 - math.log(2.5)
    assert float(KNOWN.probability(0.4, 0.55, 30, 2.5)) == pytest.approx(sigmoid(several))
    assert float(KNOWN.probability(0.4, np.inf, 1, 2.5)) == pytest.approx(sigmoid(pair))
    assert float(scaled.probability(0.4, 0.55, 30, 2.5)) == pytest.approx(
        sigmoid(1.2 * several - 0.3)
    )
    assert KNOWN.pair_probability([0.4]).tolist() == pytest.approx([sigmoid(14 - 19 * 0.4)])
    assert KNOWN.probability([0.4, 0.4], [0.5, np.inf], 2, 1).shape == (2,)


def test_draw_searches_match_loops():
    distance, owner, _ = distances(*persons(1, count=12, images=4))
    searches = draw_searches(distance, owner, 5, 2, np.random.default_rng(3))
    rows = [i for i in range(len(owner)) if i not in set(searches.query.tolist())]
    enrolled = sorted({owner[i] for i in rows})
    assert [sum(owner[i] == p for i in rows) for p in enrolled] == [2] * 5
    for n, query in enumerate(searches.query.tolist()):
        nearest = sorted(
            (min(distance[query, i] for i in rows if owner[i] == p), p) for p in enrolled
        )
        assert searches.distance[n] == nearest[0][0]
        assert searches.second[n] == nearest[1][0]
        assert searches.right[n] == (nearest[0][1] == owner[query])
        assert searches.enrolled[n] == (owner[query] in enrolled)
    assert searches.weight[searches.enrolled].sum() == pytest.approx(0.5)
    assert searches.weight.sum() == pytest.approx(1)


def test_left_out_searches_match_loops():
    x, names = persons(2, count=6, images=3)
    keep = np.r_[0:16]  # the last person has one image
    distance, owner, counts = distances(x[keep], names[keep])
    searches = left_out(distance, owner, counts)
    mated, others = [], []
    for i in range(16):
        per = {
            p: min((distance[i, j] for j in range(16) if owner[j] == p and j != i), default=np.inf)
            for p in range(6)
        }
        rest = sorted(d for p, d in per.items() if p != owner[i])
        others.append(rest[:2])
        if per[owner[i]] < np.inf:
            mated.append((*sorted(per.values())[:2], per[owner[i]] <= rest[0]))
    np.testing.assert_array_equal(np.stack(searches.mated[:2], 1), [m[:2] for m in mated])
    np.testing.assert_array_equal(searches.right, [m[2] for m in mated])
    np.testing.assert_array_equal(np.stack(searches.non_mated[:2], 1), others)
    assert searches.mated[2:] == (6, 16 / 6)
    assert searches.non_mated[2:] == (5, 16 / 6)


def test_fit_calibration_is_calibrated_on_other_persons(fitted):
    distance, owner, _ = distances(*persons(7))
    rng = np.random.default_rng(0)
    for size, images in ((1, 2), (5, 1), (10, 2), (30, 4)):
        gaps = np.zeros(10)
        draws = 30 if size == 1 else 10
        for _ in range(draws):
            s = draw_searches(distance, owner, size, images, rng)
            p = fitted.probability(s.distance, s.second, size, images)
            place = np.minimum((10 * p).astype(int), 9)
            gaps += np.bincount(place, s.weight * (p - s.right), minlength=10) / draws
        assert np.abs(gaps).sum() < 0.06, (size, images)
    assert fitted.search[1] < 0 < fitted.search[2]
    assert fitted.search[3] < 0
    assert fitted.pair[1] < 0


def test_adapt_more_images_change_calibration_more(fitted):
    """Persons of another network of cameras, who are closer together."""
    x, names = persons(11, count=80, images=5)
    x = x + 1.5 * x.mean(axis=0) + 0.35
    x /= np.linalg.norm(x, axis=1, keepdims=True)

    def loss(calibration, size, images):
        distance, owner, _ = distances(x, names)
        rng = np.random.default_rng(2)
        total = 0.0
        for _ in range(10):
            s = draw_searches(distance, owner, size, images, rng)
            p = np.clip(calibration.probability(s.distance, s.second, size, images), 1e-9, 1 - 1e-9)
            total -= (s.weight * np.log(np.where(s.right, p, 1 - p))).sum() / 10
        return total

    few = np.isin(names, [f"p{i}" for i in range(5)])
    few &= np.arange(len(names)) % 5 < 2
    many = np.arange(len(names)) % 5 < 4
    little, much = (fitted.adapt(x[rows], names[rows]) for rows in (few, many))
    assert (little.persons, little.images) == (5, 10)
    assert abs(little.offset) < abs(much.offset)
    assert 0.75 < little.scale < 1.3
    assert loss(much, 30, 2) < loss(fitted, 30, 2)
    assert (fitted.persons, much.persons) == (0, 80)
    assert much.search == fitted.search


def test_adapt_too_few_images_raises():
    x, names = persons(3, count=4, images=3)
    with pytest.raises(InputError, match=r"needs 5 persons with at least 2 images, got 4"):
        KNOWN.adapt(x, names)


def test_fit_calibration_too_few_persons_or_other_lengths_raise():
    x, names = persons(3, count=9)
    with pytest.raises(InputError, match=r"needs 10 persons .* got 9"):
        fit_calibration([(x, names)], "few")
    with pytest.raises(
        InputError, match=r"`identities` must be integers or strings of the shape \(54,\)"
    ):
        fit_calibration([(x, names[1:])], "few")


def test_calibration_round_trips_json_and_checks_values():
    assert MatchCalibration(**json.loads(json.dumps(KNOWN.to_dict()))) == KNOWN
    with pytest.raises(InputError, match="`search` must have 5 coefficients, `pair` 3"):
        dataclasses.replace(KNOWN, pair=(1, 2))
    with pytest.raises(InputError, match="all values must be finite"):
        dataclasses.replace(KNOWN, offset=float("nan"))


def test_run_calibration_is_from_member(tmp_path):
    values = {"1": KNOWN.to_dict(), "2": {**KNOWN.to_dict(), "offset": 0.5}}
    metrics = {"calibration": values, "members": {"1": {"mAP": 0.3}, "2": {"mAP": 0.4}}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    run = Run(tmp_path)
    assert run.calibration() == KNOWN
    assert run.calibration("best").offset == 0.5
    assert run.calibration("ensemble") is None
    (tmp_path / "metrics.json").write_text(json.dumps({"calibration": {"1": {"search": [1]}}}))
    with pytest.raises(InputError, match=r"metrics.json` must have the values of MatchCalibration"):
        run.calibration()


def test_retrieval_evaluation_calibration_leaves_distractors_out():
    x, names = persons(5, count=24, images=4)
    distractor = np.isin(names, ["p20", "p21", "p22", "p23"])
    images = PersonImages(np.arange(len(x)).astype(str), names, None, distractor=distractor)
    sides = np.arange(len(x)) % 4 == 0
    evaluation = RetrievalEvaluation(
        images[sides], images[~sides], protocol=Protocol(dataset="drawn")
    )
    evaluation.last = Ranking(None, (x[sides], x[~sides]), images[sides], images[~sides])
    rows = np.concatenate([np.flatnonzero(sides), np.flatnonzero(~sides)])
    rows = rows[~distractor[rows]]
    expected = fit_calibration([(x[rows], names[rows])], "validation persons of drawn")
    assert evaluation.calibration() == expected
    few = np.isin(names, ["p0", "p1"])
    evaluation.last = Ranking(None, (x[few], x[few]), images[few], images[few])
    assert evaluation.calibration() is None
