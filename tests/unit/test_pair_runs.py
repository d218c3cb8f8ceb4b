"""Training method of pair verifiers: batches, losses, scores, calibration and runs."""

import json
from itertools import product

import keras
import numpy as np
import pytest
from PIL import Image

from keras_reid import data, evaluation, inference, models
from keras_reid.data import inputs
from keras_reid.errors import InputError
from keras_reid.inference import pair_verifier
from keras_reid.pixels import decode
from keras_reid.training import PairEvaluation, Plan, Run, build, fitting, recipes
from keras_reid.training.pairs import validation_pairs

SIZE = (32, 16)


def tiny(**changes):
    small = {"backbone": "tiny", "weights": "none", "height": 32, "width": 16, "epochs": 1}
    return recipes.get("pair_verifier").replace(**small, num_identities_per_batch=4, **changes)


def verifier(seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return models.build_pair_verifier("tiny", SIZE, weights="none")


def images(people: str, cameras: str = "") -> data.PersonImages:
    paths = [f"{number}.jpg" for number in range(len(people))]
    return data.PersonImages(paths, [*people], [*cameras] or None)


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)


def test_pair_recipe_model_and_loss_compare_pairs() -> None:
    recipe = tiny(margin=0.7, metric_weight=0.5)
    assert [*build.build_model(recipe, 5).output] == ["distance"]
    arguments = build.build_losses(recipe)
    (loss,) = arguments["loss"]["distance"]
    assert (loss.margin, loss.pairs) == (0.7, "given")
    assert arguments["loss_weights"] == {"distance": [0.5]}
    with pytest.raises(InputError, match=r"`gate` must be one of .*, got 'nowhere'"):
        build.build_model(tiny(gate="nowhere"), 5)


def test_pair_recipe_on_several_replicas_raises() -> None:
    with pytest.raises(InputError, match="trains on one replica"):
        build.build_losses(tiny(), gather=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_instances": 4}, "`num_instances` must be 2 with pair_verifier, got 4"),
        ({"identity_weight": 1.0}, "`identity_weight` must be 0.0 with pair_verifier"),
        ({"pretrain_epochs": 2}, "`pretrain_epochs` must be 0 with pair_verifier"),
        ({"stripes": 4}, "`stripes` must be 0 with pair_verifier"),
        ({"parts": 4}, "each define the embedding"),
    ],
)
def test_pair_recipe_other_settings_raise(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**changes)


def test_pair_batches_of_recipe_leave_single_images_out(pedestrians) -> None:
    train = data.load("market1501", str(pedestrians)).train
    first = np.flatnonzero(train.identity == train.identity[0])
    few = train[np.delete(np.arange(len(train)), first[1:])]
    plan = Plan.of(tiny(augment="none"), few)
    assert plan.num_identities == len(train.classes()[0]) - 1
    pair, same = next(iter(fitting._batches(plan, plan.recipe, 0, 0, None)))
    assert [tuple(side.shape) for side in pair] == [(8, *SIZE, 3)] * 2
    assert same.numpy().tolist() == [1] * 4 + [0] * 4


def test_validation_pairs_cross_cameras_without_distractors() -> None:
    query = images("aab", "121")
    gallery = data.PersonImages(
        [f"{n}.png" for n in range(5)], [*"aabc0"], [*"12211"], distractor=[0, 0, 0, 0, 1]
    )
    rows, columns = validation_pairs(query, gallery)
    pairs = set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert pairs == {(0, 1), (1, 0), (2, 2), (0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (2, 3)}
    rows, columns = validation_pairs(query, gallery, across_cameras=False)
    assert {(0, 0), (1, 1)} <= set(zip(rows.tolist(), columns.tolist(), strict=True))


def test_pair_evaluation_without_genuine_pairs_raises() -> None:
    with pytest.raises(InputError, match="of one person and one of different persons, got 0 and 2"):
        PairEvaluation(images("ab", "11"), images("ab", "11"))


def test_fit_pair_calibration_both_kinds_have_equal_weight() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(1100) < 100
    distances = np.where(same, rng.normal(0.4, 0.1, 1100), rng.normal(0.8, 0.1, 1100))
    calibration = evaluation.fit_pair_calibration(distances, same, "here")
    near, middle, far = calibration.pair_probability([0.4, 0.6, 0.8])
    assert near > 0.95
    assert middle == pytest.approx(0.5, abs=0.1)
    assert far < 0.05
    assert calibration.impostor == pytest.approx(0.8, abs=0.01)


def test_fit_pair_run_is_scored_calibrated_and_loaded(pedestrians, tmp_path) -> None:
    dataset = data.load("market1501", str(pedestrians))
    plan = Plan.of(tiny(), dataset.train)
    run = Run(tmp_path / "run")
    evaluation = PairEvaluation(dataset.query, dataset.gallery)
    (model,) = plan.members()
    fitting.fit(model, plan, run, {**plan.recipe.settings}, verbose=0, callbacks=[evaluation])
    (row,) = [json.loads(line) for line in run.history_file.read_text().splitlines()]
    result = evaluation.score(model)
    assert row["val_auc"] == result.auc
    assert evaluation.summary(result) == {"AUC": result.auc, "EER": result.eer}
    assert evaluation.verifier(model) is evaluation.verifier(model)
    assert evaluation.calibration() is None  # 6 persons
    evaluation.persons = 10
    flags = {"dataset": "market1501", "data_dir": "x", **run.flags}
    run.flags_file.write_text(json.dumps(flags))
    calibration = evaluation.calibration()
    run.finish({"calibration": {"1": calibration.to_dict()}})
    loaded = inference.load(run.directory)
    assert isinstance(loaded, inference.PairVerifier)
    assert loaded.calibration == calibration
    found = loaded.distances(evaluation.first[:3], evaluation.second[:3])
    np.testing.assert_allclose(found, evaluation.last[:3], atol=1e-5)


def test_pair_verifier_distances_of_arrays_match_model() -> None:
    model = verifier()
    loaded = inference.load(model)
    x, y = pixels(5), pixels(5, seed=1)
    expected = np.diag(models.pair_distances(model, x, y))
    np.testing.assert_allclose(loaded.distances(x, y, batch_size=2), expected, atol=1e-5)
    assert loaded.distances(x[0], y[0]).shape == (1,)
    assert loaded.image_size == SIZE
    for first, second in ((x, y[:4]), ([], [])):
        with pytest.raises(InputError, match="`first` and `second` must have the same number"):
            loaded.distances(first, second)


def test_pair_verifier_product_of_files_decodes_each_image_once_per_block(
    tmp_path, monkeypatch
) -> None:
    model = verifier()
    x, y = pixels(5), pixels(3, seed=1)
    files = [str(tmp_path / f"{i}.png") for i in range(8)]
    for file, image in zip(files, [*x, *y], strict=True):
        Image.fromarray(image).save(file)
    decoded = []
    monkeypatch.setattr(inputs, "decode", lambda path: decoded.append(path) or decode(path))
    monkeypatch.setattr(pair_verifier, "BLOCK", 4)
    first, second = zip(*product(files[:5], files[5:]), strict=True)
    distances = inference.load(model).distances(first, second, batch_size=4)
    expected = models.pair_distances(model, x, y)
    np.testing.assert_allclose(distances.reshape(5, 3), expected, atol=1e-5)
    assert len(decoded) == 4 + 3 + 1 + 3  # two blocks


def test_pair_verifier_reports_progress() -> None:
    done = []
    inference.load(verifier()).distances(
        pixels(5), pixels(5), 2, lambda now, total: done.append((now, total))
    )
    assert done == [(2, 5), (4, 5), (5, 5)]


def test_pair_verifier_probability_follows_calibration() -> None:
    calibration = evaluation.MatchCalibration((2, -4, 0, 0, 0), (2, -4, 0), 1.0, "here")
    loaded = inference.PairVerifier(verifier(), calibration=calibration)
    np.testing.assert_allclose(loaded.probability([0.5]), 0.5)
    with pytest.raises(InputError, match="pair_verifier has no calibration"):
        inference.load(verifier()).probability([0.5])


def test_pair_verifier_fingerprint_depends_on_weights() -> None:
    one, same, other = (inference.load(verifier(seed)).fingerprint for seed in (0, 0, 1))
    assert one == same != other


def test_pair_verifier_file_is_loaded_and_refused_as_embedder(tmp_path) -> None:
    verifier().save(tmp_path / "pairs.keras")
    loaded = inference.load(tmp_path / "pairs.keras")
    assert isinstance(loaded, inference.PairVerifier)
    assert loaded.calibration is None
    with pytest.raises(InputError, match=r"must be an embedder, got the pair verifier .*pairs"):
        inference.load_embedder(tmp_path / "pairs.keras")
    assert isinstance(inference.load_embedder("pretrained"), inference.Embedder)


def test_pair_verifier_as_teacher_raises(tmp_path) -> None:
    run = Run(tmp_path / "teacher")
    run.directory.mkdir()
    run.save_models([verifier()])
    small = {"height": 32, "width": 16, "distillation": "ranks:1"}
    recipe = recipes.get("tiny").replace(teacher=str(run.directory), **small)
    with pytest.raises(InputError, match="must be an embedder"):
        recipe.load_teacher(5)
