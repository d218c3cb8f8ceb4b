"""Views with the embeddings of a teacher: their files, batches, and training on them."""

import json
from pathlib import Path

import keras
import networks
import numpy as np
import pytest

from keras_reid import data, evaluation, inference, losses, models, pixels
from keras_reid.cli.train import train
from keras_reid.cli.train_options import TrainOptions
from keras_reid.data import PersonImages
from keras_reid.data.sampling import sampling_classes
from keras_reid.data.views import MIXED, view, view_sources
from keras_reid.errors import InputError
from keras_reid.training import Plan, fitting, recipes, runs, teachers, views
from keras_reid.training.build import build_losses, build_model

SIZE = (32, 16)  # of the student
TEACHER_SIZE = (40, 20)
WIDTH = 6  # embedding size of the teacher
SMALL = {
    "backbone": "tiny",
    "weights": "none",
    "height": SIZE[0],
    "width": SIZE[1],
    "num_identities_per_batch": 2,
    "views_per_round": 12,
    "round_epochs": 2,
    "epochs": 3,
}


@pytest.fixture(scope="module")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a `.keras` file that embeds the rough layout of an image."""
    keras.utils.set_random_seed(5)
    images = keras.Input((*TEACHER_SIZE, 3), dtype="uint8")
    x = keras.layers.AveragePooling2D(10)(keras.layers.Rescaling(1 / 255)(images))
    embedding = keras.layers.Dense(WIDTH)(keras.layers.Flatten()(x))
    file = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    keras.Model(images, embedding).save(file)
    return file


@pytest.fixture
def teacher(teacher_file: Path) -> inference.Embedder:
    return inference.load_embedder(teacher_file)


@pytest.fixture
def images(pedestrians: Path) -> PersonImages:
    """Return 10 images, the last 4 without identity."""
    train = data.load("market1501", pedestrians).train[:10]
    identity = ["a"] * 3 + ["b"] * 3 + [""] * 4
    return PersonImages(train.path, identity, None)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "SHARD", 5)
    monkeypatch.setattr(views, "BATCH", 2)


def distill(**settings):
    return recipes.get("distill").replace(**SMALL | settings)


# --- Images without identity


def test_person_images_empty_identity_is_unlabeled(images) -> None:
    assert images.unlabeled.tolist() == [False] * 6 + [True] * 4
    names, index = images.classes()
    assert names.tolist() == ["a", "b"]
    assert index.tolist() == [0, 0, 0, 1, 1, 1, -7, -8, -9, -10]
    assert repr(images) == "PersonImages(10 images, 2 identities, 4 without identity, no cameras)"
    assert not PersonImages(["a.jpg"], [0], None).unlabeled.any()


def test_sampling_classes_unlabeled_images_fill_groups() -> None:
    classes = sampling_classes(np.array([1, 1, -3, -4, -5, 0]), 2)
    assert classes[[0, 1, 5]].tolist() == [1, 1, 0]
    assert np.bincount(classes).tolist() == [1, 2, 2, 1]
    assert sampling_classes(np.array([-1, -2]), 1).tolist() in ([0, 1], [1, 0])


def test_hold_out_keeps_unlabeled_images_in_training(pedestrians) -> None:
    train = data.load("market1501", pedestrians).train
    identity = np.where(train.identity == train.identity[0], "", train.identity.astype(str))
    some = PersonImages(train.path, identity, train.camera)
    part = data.ReidDataset("mine", some, None, None).hold_out(0.3)
    assert part.train.unlabeled.sum() == (identity == "").sum()
    assert not part.query.unlabeled.any()


def test_check_unlabeled_images_are_no_identity(images) -> None:
    report = data.check(data.ReidDataset("mine", images, None, None), 4)
    assert report.sizes["train"] == (10, 2, None)
    assert report.few == ["a", "b"]


def test_plan_unlabeled_images_without_distillation_raise(images) -> None:
    message = r"`images` must be images with identities .*, got 4 without .* recipe distill"
    with pytest.raises(InputError, match=message):
        Plan.of(recipes.get("tiny"), images)


# --- Views


def test_view_sources_show_every_image_equally_often() -> None:
    sources = view_sources(7, 7000, seed=(0, 0))
    assert np.bincount(sources.row).tolist() == [1000] * 7
    assert (sources.partner >= 0).mean() == pytest.approx(MIXED, abs=0.02)
    assert set(sources.partner) == {*range(-1, 7)}
    again, other = (view_sources(7, 7000, seed=(0, n)) for n in (0, 1))
    np.testing.assert_array_equal(sources.row, again.row)
    assert (sources.row != other.row).any()


def test_view_is_a_function_of_its_seed_and_keeps_flat_colors() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 30, 3), dtype=np.uint8)
    one, same, other = (view([image], SIZE, np.random.default_rng(n)) for n in (1, 1, 2))
    assert one.shape == (*SIZE, 3)
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    gray = np.full((50, 30, 3), 100, np.uint8)
    levels = [view([gray], SIZE, np.random.default_rng(n)) for n in range(40)]
    assert all(np.ptp(level) == 0 for level in levels)
    assert {70 <= level.max() <= 130 for level in levels} == {True}


def test_view_mixture_lies_between_its_images() -> None:
    dark, light = (np.full((9, 9, 3), level, np.uint8) for level in (0, 150))
    levels = [view([dark, light], (8, 4), np.random.default_rng(n)).mean() for n in range(60)]
    assert min(levels) < 30
    assert max(levels) > 100


def test_views_embeddings_are_those_of_the_same_view(
    teacher, images, tmp_path, small_shards
) -> None:
    store = views.Views(tmp_path / "views", teacher, images, SIZE, 12, seed=3)
    stored = store.round(0)
    student, embeddings = stored.read(np.arange(12))
    sources = view_sources(10, 12, (3, 0))
    for i in range(12):
        rows = [row for row in (sources.row[i], sources.partner[i]) if row >= 0]
        decoded = [pixels.decode(images.path[row]) for row in rows]
        made = view(decoded, TEACHER_SIZE, np.random.default_rng((3, 0, i)))
        np.testing.assert_array_equal(student[i], pixels.resize(made, SIZE))
        expected = teacher.run(pixels.resize(made, TEACHER_SIZE)[None])["embedding"][0]
        np.testing.assert_allclose(embeddings[i], expected, atol=1e-3)
    shuffled = np.array([7, 0, 11])
    np.testing.assert_array_equal(stored.read(shuffled)[0], student[shuffled])
    unlabeled = (sources.row >= 6) | (sources.partner >= 0)
    labels = stored.classes(images.classes()[1])
    np.testing.assert_array_equal(labels < 0, unlabeled)
    assert len({*labels[unlabeled].tolist()}) == unlabeled.sum()


def test_views_interrupted_generation_continues_with_next_shard(
    teacher, images, tmp_path, small_shards, monkeypatch
) -> None:
    whole = views.Views(tmp_path / "whole", teacher, images, SIZE, 12).round(0)
    run, calls = teacher.run, []

    def interrupted(batch):
        calls.append(len(batch))
        if len(calls) == 5:
            raise KeyboardInterrupt
        return run(batch)

    store = views.Views(tmp_path / "views", teacher, images, SIZE, 12)
    monkeypatch.setattr(teacher, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.round(0)
    assert [file.name for file in (tmp_path / "views/round-0").iterdir()] == ["00000.npy"]
    first = (tmp_path / "views/round-0/00000.npy").stat().st_mtime_ns
    counts = []
    resumed = store.round(0, progress=lambda done, total: counts.append((done, total)))
    assert calls == [2, 2, 1, 2, 2, 2, 2, 1, 2]  # the fifth call is repeated with its shard
    assert counts == [(5, 12), (10, 12), (12, 12)]
    assert (tmp_path / "views/round-0/00000.npy").stat().st_mtime_ns == first
    for a, b in zip(whole.read(np.arange(12)), resumed.read(np.arange(12)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_views_folder_of_other_settings_raises(teacher, images, tmp_path) -> None:
    views.Views(tmp_path / "views", teacher, images, SIZE, 4).round(0)
    message = r"`views_dir` must be a new folder, .* with another images, seed\. Give another"
    with pytest.raises(InputError, match=message):
        views.Views(tmp_path / "views", teacher, images[:8], SIZE, 4, seed=1).round(0)


def test_views_truncated_shard_raises_with_fix(teacher, images, tmp_path) -> None:
    store = views.Views(tmp_path / "views", teacher, images, SIZE, 4)
    store.round(0)
    file = tmp_path / "views/round-0/00000.npy"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"00000\.npy` must hold views, .* Remove it; the same"):
        store.round(0)


def test_views_teacher_of_keypoints_raises() -> None:
    model = keras.Model(
        images := keras.Input((4, 4, 3), name="images"), keras.layers.Flatten()(images)
    )
    embedder = inference.load(model)
    teachers.check_teacher(embedder)
    embedder.inputs = frozenset({"images", "keypoints"})
    with pytest.raises(InputError, match=r"`teacher` must be a model of single .* keypoints"):
        teachers.check_teacher(embedder)


def test_views_onnx_teacher_embeds_at_its_own_size(images, tmp_path) -> None:
    file = networks.write_rows(tmp_path / "rows.onnx", [1, 3, 40, 20])
    settings = {"channel_order": "bgr", "scale": 1, "mean": 0}
    teacher = inference.load_embedder(file, **settings)
    stored = views.Views(tmp_path / "views", teacher, images, SIZE, 4).round(0)
    student, embeddings = stored.read(np.arange(4))
    assert student.shape == (4, *SIZE, 3)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
    # The means of the rows of a view, blue first.
    rows = student.mean(axis=2)[..., ::-1].transpose(0, 2, 1)
    rows = np.stack([pixels.resize(r.T[:, None].astype(np.uint8), (40, 1)) for r in rows])
    flat = rows[:, :, 0].transpose(0, 2, 1).reshape(4, -1).astype(float)
    cosines = (flat * embeddings).sum(1) / np.linalg.norm(flat, axis=1)
    assert (cosines > 0.995).all()


# --- Batches


def batches_of(stored, index, groups=(4, 1), first=0):
    return views.view_batches(stored, index, groups, 3, 0, first).as_numpy_iterator()


def test_view_batches_one_epoch_shows_every_view_once(teacher, images, tmp_path) -> None:
    stored = views.Views(tmp_path / "views", teacher, images, SIZE, 12).round(0)
    stream = batches_of(stored, images.anonymous().classes()[1])
    epochs = [[next(stream) for _ in range(3)] for _ in range(2)]
    order = [-1 - np.concatenate([y["identity"] for _, y in epoch]) for epoch in epochs]
    for rows, epoch in zip(order, epochs, strict=True):
        assert sorted(rows) == [*range(12)]
        pixels_of, embeddings = stored.read(rows)
        np.testing.assert_array_equal(np.concatenate([x for x, _ in epoch]), pixels_of)
        found = np.concatenate([y["teacher"] for _, y in epoch])
        np.testing.assert_array_equal(found, embeddings)
    assert (order[0] != order[1]).any()
    resumed = next(batches_of(stored, images.anonymous().classes()[1], first=1))
    np.testing.assert_array_equal(resumed[0], epochs[1][0][0])


def test_view_batches_labels_are_grouped(teacher, images, tmp_path) -> None:
    stored = views.Views(tmp_path / "views", teacher, images, SIZE, 24).round(0)
    index = images.classes()[1]
    for x, y in [next(batches_of(stored, index, (2, 2))) for _ in range(6)]:
        pairs = y["identity"].reshape(2, 2)
        labeled = pairs >= 0
        assert (labeled[:, 0] == labeled[:, 1]).all()
        assert (pairs[:, 0] == pairs[:, 1])[labeled[:, 0]].all()
        _, labels, weights = views.with_class_labels(x, y)
        np.testing.assert_array_equal(weights["logits"], labeled.ravel())
        assert (labels["class"].numpy() >= 0).all()


# --- Training


def test_distill_projection_only_where_sizes_differ(teacher, images) -> None:
    recipe = distill()
    plan = Plan.of(recipe, images, teacher=teacher)
    assert (plan.steps, plan.annotations.teacher) == (12 // 8, WIDTH)
    model = build_model(recipe, plan.num_identities, plan.annotations)
    assert {k: v.shape[1] for k, v in model.output.items()} == {
        "features": 128,
        "embedding": 128,
        "teacher": WIDTH,
    }
    same = build_model(recipe.replace(embedding_dim=WIDTH), 2, plan.annotations)
    assert same.get_layer("teacher").count_params() == 0
    assert "teacher" not in models.outputs_at_test(model).output


def test_distill_losses_read_the_teacher_and_the_classes() -> None:
    arguments = build_losses(distill(distillation="cosine:4,distances:40,ranks:1"))
    assert {k: [type(one).__name__ for one in v] for k, v in arguments["loss"].items()} == {
        "teacher": ["CosineDistillationLoss"],
        "embedding": ["DistanceDistillationLoss", "RankDistillationLoss"],
    }
    assert arguments["loss_weights"] == {"teacher": [4.0], "embedding": [40.0, 1.0]}
    assert {one.label for v in arguments["loss"].values() for one in v} == {"teacher"}
    labeled = build_losses(distill(identity_weight=0.5, metric_weight=1.0))
    assert labeled["loss"]["logits"][0].label == "class"
    assert labeled["loss"]["features"][0].label is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distillation": "logits:1"}, "`distillation` must be cosine, distances or ranks"),
        ({"distillation": ""}, "`distillation` must be cosine, distances or ranks"),
        ({"members": "tiny,tiny"}, "`members` must be empty with distillation"),
        ({"parts": 2}, "`parts` must be 0 with distillation"),
        ({"small_epochs": 1}, "`small_epochs` must be 0 with distillation"),
    ],
)
def test_distill_conflicting_settings_raise(settings, message) -> None:
    with pytest.raises(InputError, match=message):
        distill(**settings)


def test_plan_distill_without_teacher_or_with_few_views_raises(images, teacher) -> None:
    with pytest.raises(InputError, match=r"`teacher` must be a trained model .* teacher_embedd"):
        Plan.of(distill(), images)
    with pytest.raises(InputError, match="`views_per_round` must be at least 8, got 7"):
        Plan.of(distill(views_per_round=7), images, teacher=teacher)


def csv_of(images: PersonImages, folder: Path) -> str:
    table = folder / "images.csv"
    lines = (f"{path},{name}\n" for path, name in zip(images.path, images.identity, strict=True))
    table.write_text("path,identity\n" + "".join(lines))
    return str(table)


def options_of(images: PersonImages, folder: Path, **settings) -> TrainOptions:
    named = {"recipe": "distill", "dataset": "csv", "data_dir": csv_of(images, folder)}
    own = {key: settings.pop(key) for key in ("holdout", "protocol") if key in settings}
    return TrainOptions(**named, **own, run=str(folder / "run"), settings=SMALL | settings)


def test_train_distill_unlabeled_images_writes_an_embedder(images, teacher_file, tmp_path) -> None:
    options = options_of(images.anonymous(), tmp_path, teacher=str(teacher_file))
    run = train(options)
    epochs = runs.read_history(run.history_file)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert {"teacher_cosine_distillation", "embedding_distance_distillation"} <= {*epochs[0]}
    assert not (run.directory / "views/round-0").exists()
    embedder = inference.load(run.directory)
    assert embedder.embedding_dim == 128
    assert embedder.embed(images[:2].path.tolist()).shape == (2, 128)


@pytest.mark.slow
def test_train_distill_labels_holdout_and_views_dir(pedestrians, teacher_file, tmp_path) -> None:
    train_images = data.load("market1501", pedestrians).train
    identity = train_images.identity.astype(str)
    identity[:6] = ""
    folder = str(tmp_path / "kept")
    options = options_of(
        PersonImages(train_images.path, identity, None),
        tmp_path,
        holdout=0.3,
        protocol="no-camera",
        teacher=str(teacher_file),
        identity_weight=1.0,
        metric_weight=1.0,
        views_dir=folder,
        views_per_round=40,
    )
    run = train(options)
    logs = runs.read_history(run.history_file)[-1]
    assert {"logits_identity", "features_triplet_hard", "teacher_cosine_distillation"} <= {*logs}
    assert np.isfinite(list(logs.values())).all()
    assert 0 <= run.metrics["after"]["mAP"] <= 1
    assert sorted(file.name for file in Path(folder).glob("round-*")) == ["round-0", "round-1"]
    assert json.loads((Path(folder) / "views.json").read_text())["views_per_round"] == 40


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("ema_momentum", [0.9, 0.0])
def test_fit_distill_resumed_at_any_epoch_equals_uninterrupted(
    images, teacher, tmp_path, ema_momentum
) -> None:
    recipe = distill(epochs=4, ema_momentum=ema_momentum, views_dir=str(tmp_path / "views"))
    plan = Plan.of(recipe, images, teacher=teacher)

    class Stop(keras.callbacks.Callback):
        def __init__(self, after: int) -> None:
            super().__init__()
            self.after = after

        def on_epoch_begin(self, epoch: int, logs=None) -> None:
            if epoch == self.after:
                raise KeyboardInterrupt

    def trained(name: str, *stops: int):
        run = runs.Run(tmp_path / name)
        for stop in (*stops, 99):
            keras.utils.set_random_seed(0)
            (model,) = plan.members()
            try:
                fitting.fit(model, plan, run, {}, verbose=0, callbacks=[Stop(stop)])
            except KeyboardInterrupt:
                run.release()
        return model.get_weights()

    for a, b in zip(trained("whole"), trained("resumed", 1, 2), strict=True):
        np.testing.assert_array_equal(a, b)


# --- Stored embeddings


def stored_file(images: PersonImages, file: Path) -> Path:
    embeddings = np.random.default_rng(0).normal(size=(len(images), WIDTH)).astype("float32")
    np.savez(file, embedding=embeddings, path=images.path)
    return file


def test_with_embeddings_matches_by_path(images, tmp_path, monkeypatch) -> None:
    file = stored_file(images, tmp_path / "teacher.npz")
    stored = evaluation.load_features(file)
    some = teachers.with_embeddings(images[[4, 1]], str(file))
    np.testing.assert_array_equal(some.columns["teacher"], stored.features["embedding"][[4, 1]])
    monkeypatch.chdir(Path(images.path[0]).parent)
    relative = PersonImages([Path(images.path[2]).name], ["a"], None)
    found = teachers.with_embeddings(relative, str(file)).columns["teacher"]
    np.testing.assert_array_equal(found, stored.features["embedding"][[2]])


def test_with_embeddings_missing_paths_raise(images, tmp_path) -> None:
    file = stored_file(images[:8], tmp_path / "teacher.npz")
    message = "`teacher_embeddings` must be a file with all training images, got .* without 2 of"
    with pytest.raises(InputError, match=message):
        teachers.with_embeddings(images, str(file))
    np.savez(file, embedding=np.eye(10))
    with pytest.raises(InputError, match="must be a file with embedding and path"):
        teachers.with_embeddings(images, str(file))


@pytest.mark.slow
@pytest.mark.parametrize("metric_weight", [0.0, 1.0])
def test_train_distill_stored_embeddings_makes_no_views(images, tmp_path, metric_weight) -> None:
    file = stored_file(images, tmp_path / "teacher.npz")
    options = options_of(
        images, tmp_path, teacher_embeddings=str(file), metric_weight=metric_weight
    )
    run = train(options)
    logs = runs.read_history(run.history_file)[-1]
    assert ("features_triplet_hard" in logs) == (metric_weight > 0)
    assert 0 < logs["teacher_cosine_distillation"] < 2
    assert not (run.directory / "views").exists()


# --- Loss


def test_cosine_distillation_fits_a_student_to_stored_embeddings() -> None:
    rng = np.random.default_rng(0)
    x, teacher = rng.normal(size=(32, 8)), rng.normal(size=(32, 3))
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(3)]
    )
    model.compile(keras.optimizers.Adam(0.02), losses.CosineDistillationLoss())
    history = model.fit(x, teacher, epochs=60, batch_size=32, verbose=0).history["loss"]
    assert history[-1] < 0.1 < history[0]
