"""Training steps, schedules, callbacks, recipes and run folders."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reid import data, losses, models
from keras_reid.cli.train import TrainOptions
from keras_reid.cli.train import run as command
from keras_reid.cli.train_options import default_text
from keras_reid.cli.train_options import with_base_run as base_options
from keras_reid.errors import InputError
from keras_reid.losses import TripletHardLoss
from keras_reid.models import heads
from keras_reid.training import (
    Backup,
    CollapseMonitor,
    FiniteLoss,
    History,
    MutualLearner,
    Plan,
    RetrievalEvaluation,
    averaged_weights,
    build,
    fitting,
    recipes,
    runs,
)
from keras_reid.training.recipe import setting_fields
from keras_reid.training.replicas import Replicas
from keras_reid.training.schedules import WarmUp, schedule
from keras_reid.training.scoring import Evaluation

SIZE = (32, 16)


LOSSES = {
    "logits": losses.IdentityLoss(0.1),
    "features": losses.TripletHardLoss(0.3, name="triplet"),
}


def batch(seed: int = 0, p: int = 4, k: int = 3) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    images = np.random.default_rng(seed).integers(0, 256, (p * k, *SIZE, 3), dtype=np.uint8)
    return tf.constant(images), {"identity": tf.constant(np.repeat(np.arange(p), k), tf.int32)}


def compiled(
    optimizer: object = None, seed: int = 0, loss: object = LOSSES, **options: object
) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = models.build("tiny", 4, SIZE, weights="none")
    model.compile(optimizer or keras.optimizers.Adam(1e-3), loss, **options)
    return model


def test_learner_step_matches_handwritten_step() -> None:
    """Weighted sum, gradient, Adam and batch statistics, against a hand-written loop."""
    ours = compiled(loss_weights={"logits": 0.5, "features": 2.0})
    images, labels = batch()
    logs = ours.train_on_batch(images, labels, return_dict=True)

    model = compiled()
    optimizer = keras.optimizers.Adam(1e-3)
    with tf.GradientTape() as tape:
        out = model(images, training=True)
        identity = losses.IdentityLoss(0.1)(labels["identity"], out["logits"])
        triplet = losses.TripletHardLoss(0.3)(labels["identity"], out["features"])
        loss = 0.5 * identity + 2.0 * triplet
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    np.testing.assert_allclose(logs["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(logs["logits_identity"], identity, rtol=1e-5)
    np.testing.assert_allclose(logs["features_triplet"], triplet, rtol=1e-5)
    for a, b in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_learner_fit_lowers_loss_and_logs_every_term() -> None:
    trained = compiled(keras.optimizers.Adam(3e-3))
    history = trained.fit(
        tf.data.Dataset.from_tensors(batch()).repeat(),
        steps_per_epoch=10,
        epochs=3,
        verbose=0,
        shuffle=False,
    ).history
    statistics = {f"features_triplet_{statistic}" for statistic in losses.STATISTICS}
    assert set(history) == {"loss", "logits_identity", "features_triplet", *statistics}
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(
        history["loss"],
        np.add(history["logits_identity"], history["features_triplet"]),
        rtol=1e-4,
    )


def test_finite_loss_nan_stops_training_with_term_name(pedestrians, tmp_path) -> None:
    trained = compiled("adam")
    (kernel,) = trained.get_layer("logits").weights
    kernel.assign(kernel * np.nan)
    message = "must be finite, got NaN or infinity in logits_identity in step 1 of an epoch"
    with pytest.raises(InputError, match=message):
        trained.fit(
            tf.data.Dataset.from_tensors(batch()).repeat(),
            steps_per_epoch=2,
            verbose=0,
            shuffle=False,
            callbacks=[FiniteLoss()],
        )
    images = data.load("market1501", str(pedestrians)).train
    recipe = tiny(epochs=1)
    model = build.build_model(recipe, len(images.classes()[0]))
    (kernel,) = model.get_layer("logits").weights
    kernel.assign(kernel * np.nan)
    run = runs.Run(tmp_path / "run")
    with pytest.raises(InputError, match="infinity in logits_identity in step 1"):
        fitting.fit(model, Plan.of(recipe, images), run, {}, verbose=0)
    assert not run.model_file.exists()


def test_learner_evaluate_and_predict_leave_weights_unchanged() -> None:
    trained = compiled()
    images, labels = batch()
    before = trained.get_weights()
    scores = trained.evaluate(images, labels, verbose=0, return_dict=True)
    out = trained.predict(images, verbose=0)
    assert {"loss", "logits_identity", "features_triplet_active"} <= set(scores)
    assert scores["loss"] > 0
    assert set(out) == {"features", "embedding", "logits"}
    for a, b in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.first(1)
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_learner_mixed_precision_reports_unscaled_loss(policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        optimizer = keras.optimizers.Adam(1e-3)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)
        trained = compiled(optimizer)
        logs = trained.train_on_batch(*batch(), return_dict=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert np.isfinite(logs["loss"])
    assert 0 < logs["loss"] < 20, "the reported loss is not scaled"


@pytest.mark.slow
def test_learner_saved_and_loaded_resumes_bit_equal(tmp_path) -> None:
    trained = compiled(loss_weights={"logits": 0.25})
    trained.train_on_batch(*batch())
    trained.save(tmp_path / "learner.keras")
    loaded = keras.saving.load_model(tmp_path / "learner.keras")
    assert loaded.loss_weights == {"logits": 0.25}
    for model in (trained, loaded):
        model.train_on_batch(*batch(1))
    for a, b in zip(trained.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "`loss` must be a dict by output"),
        ({"loss": None}, "`loss` must be a dict by output, got None. Write loss="),
        ({"loss": {"local": "mse"}}, r"keyed by outputs of the model, got \['local'\]"),
        ({"loss": {"features": losses.AlignedTripletLoss()}}, r"got \['local'\]"),
        ({"loss_weights": [1.0]}, "`loss_weights` must be a dict by output"),
        (
            {"loss_weights": {"features": [1.0, 2.0]}},
            "must be a number for each loss, with the keys of loss",
        ),
        ({"loss_weights": {"embedding": 1.0}}, "must be a number for each loss"),
        (
            {"loss": {"logits": [losses.IdentityLoss()] * 2}},
            r"losses with different names, got",
        ),
    ],
)
def test_compile_invalid_losses_raise(options, message) -> None:
    with pytest.raises(InputError, match=message):
        compiled(**options)


@keras.saving.register_keras_serializable(package="tests")
class RatioLoss(losses.MetricLoss):
    """`d⁺ / (d⁺ + d⁻ + epsilon)`, a loss outside of the package."""

    def __init__(self, epsilon=1e-6, **common):
        super().__init__(**common)
        self.epsilon = epsilon

    def formula(self, mined):
        return mined.positive / (mined.positive + mined.negative + self.epsilon)


def test_custom_loss_fit_is_logged_and_saved(tmp_path) -> None:
    loss = {"features": RatioLoss(1e-4, normalize=True), "logits": losses.IdentityLoss()}
    trained = compiled(loss=loss)
    images, labels = batch()
    logs = trained.train_on_batch(images, labels, return_dict=True)
    assert 0.3 < logs["features_ratio"] < 0.9
    assert {f"features_ratio_{statistic}" for statistic in losses.STATISTICS} <= set(logs)
    trained.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again.loss["features"], RatioLoss)
    assert again.loss["features"].epsilon == 1e-4
    expected = trained.test_on_batch(images, labels, return_dict=True)
    assert again.test_on_batch(images, labels, return_dict=True) == pytest.approx(expected)


def test_compile_loss_by_name_is_averaged_and_weighted() -> None:
    images, labels = batch()
    trained = compiled(loss={"logits": "sparse_categorical_crossentropy"})
    weights = np.linspace(0, 2, len(images)).astype("float32")
    logs = trained.test_on_batch(images, labels, weights, return_dict=True)
    each = keras.losses.sparse_categorical_crossentropy(
        labels["identity"], trained(images, training=False)["logits"]
    )
    expected = float(np.mean(weights * each))
    assert logs["logits_sparse_categorical_crossentropy"] == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_compile_several_losses_of_one_output_are_added() -> None:
    several = [losses.TripletHardLoss(0.3), losses.ContrastiveLoss()]
    trained = compiled(loss={"features": several}, loss_weights={"features": [1.0, 0.5]})
    logs = trained.test_on_batch(*batch(), return_dict=True)
    expected = logs["features_triplet_hard"] + 0.5 * logs["features_contrastive"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_compile_loss_with_label_reads_that_label() -> None:
    images, labels = batch()
    other = {"identity": labels["identity"], "clothes": labels["identity"][::-1]}
    trained = compiled(loss={"logits": losses.IdentityLoss(label="clothes")})
    swapped = trained.test_on_batch(images, other, return_dict=True)
    named = trained.test_on_batch(images, {"clothes": other["clothes"]}, return_dict=True)
    assert swapped == named
    with pytest.raises(InputError, match=r"must contain 'clothes' for the loss logits_identity"):
        trained.test_step((images, labels))
    array = compiled(loss={"logits": losses.IdentityLoss()})
    expected = array.test_on_batch(images, labels, return_dict=True)
    assert array.test_on_batch(images, labels["identity"], return_dict=True) == expected


@pytest.mark.parametrize("kind", ["cosine", "step", "constant"])
def test_schedule_warms_up_and_decays(kind: str) -> None:
    rate = schedule(kind, 1.0, steps=70, warmup=10)
    values = np.array([float(rate(t)) for t in range(70)])
    np.testing.assert_allclose(values[0], 0.1, rtol=0.01)
    assert (np.diff(values[:10]) > 0).all()
    assert (np.diff(values[10:]) <= 0).all()
    expected = {"cosine": 0.0005, "step": 0.01, "constant": 1.0}[kind]
    np.testing.assert_allclose(values[-1], expected, atol=1e-3)
    again = WarmUp.from_config(rate.get_config())
    assert float(again(7)) == float(rate(7))


def test_schedule_unknown_kind_raises() -> None:
    with pytest.raises(InputError, match="one of constant, cosine, step, got 'sine'"):
        schedule("sine", 1.0, 10)


def test_averaged_weights_are_swapped_in_and_restored() -> None:
    trained = compiled(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.5))
    for _ in range(3):
        trained.train_on_batch(*batch())
    raw = trained.get_weights()
    with averaged_weights(trained):
        inside = trained.get_weights()
    differ = [not np.array_equal(a, b) for a, b in zip(raw, inside, strict=True)]
    assert any(differ)
    for a, b in zip(raw, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_evaluation_every_second_epoch_scores_the_last_too() -> None:
    class Count(Evaluation):
        every = 2

        def scores(self, members):
            return {"val_count": float(len(members))}

    callback = Count()
    callback.set_params({"epochs": 3})
    callback.set_model(compiled())
    epochs: list[dict] = [{"loss": 1.0} for _ in range(3)]
    for epoch, logs in enumerate(epochs):
        callback.on_epoch_end(epoch, logs)
    assert [logs.get("val_count") for logs in epochs] == [None, 1, 1]


@pytest.mark.slow
def test_retrieval_evaluation_logs_scores_to_history(pedestrians) -> None:
    dataset = data.load("market1501", str(pedestrians))
    callback = RetrievalEvaluation(dataset.query, dataset.gallery, every=2)
    trained = compiled()
    history = trained.fit(
        tf.data.Dataset.from_tensors(batch()).repeat(),
        steps_per_epoch=1,
        epochs=3,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    ).history
    assert len(history["val_mAP"]) == 2
    assert history["val_mAP"][-1] == callback.score(trained).mAP
    assert history["val_rank1"][-1] == callback.score(trained).rank(1)


@pytest.mark.nightly
def test_model_checkpoint_val_map_saves_best_epoch(pedestrians, tmp_path) -> None:
    dataset = data.load("market1501", str(pedestrians))
    path = tmp_path / "best.weights.h5"
    trained = compiled()
    trained.fit(
        tf.data.Dataset.from_tensors(batch()).repeat(),
        steps_per_epoch=1,
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[
            RetrievalEvaluation(dataset.query, dataset.gallery),
            keras.callbacks.ModelCheckpoint(
                path, monitor="val_mAP", mode="max", save_best_only=True, save_weights_only=True
            ),
        ],
    )
    assert path.exists()


REFINED = {
    "epochs": 1,
    "parts": 2,
    "induction_epochs": 1,
    "refinement_epochs": 1,
    "metric_weight": 0.0,
}
BOT = recipes.get("bot")
TWO = {"members": "tiny,tiny", "distillation": "logits:1,distances:0.1,ranks:0.1"}


def tiny(**changes) -> recipes.Recipe:
    values = {
        "backbone": "tiny",
        "weights": "none",
        "height": 32,
        "width": 16,
        "epochs": 3,
        "learning_rate": 1e-3,
        "num_identities_per_batch": 4,
        "num_instances": 2,
        "flip": False,
    }
    return recipes.Recipe(**values).replace(**changes)


@pytest.mark.slow
@pytest.mark.first(4)
@pytest.mark.parametrize(
    ("changes", "epochs_before"),
    [
        ({"ema_momentum": 0.9}, 1),
        (
            {
                **TWO,
                "update": "sequential",
                "per_member_augmentation": True,
                "ramp_up": 2.0,
                "ema_momentum": 0.9,
            },
            1,
        ),
        ({**REFINED, "stripes": 2}, 2),
        ({**TWO, "small_epochs": 1, "epochs": 2, "height": 64, "width": 32}, 2),
        ({**TWO, "pretrain_epochs": 1, "epochs": 2, "weight_decay": 1e-3}, 2),
        ({"pretrain_epochs": 2, "epochs": 1, "identity_weight": 0.0, "ema_momentum": 0.9}, 1),
        (
            {
                "pretrain_epochs": 1,
                "epochs": 2,
                "identity_weight": 0.0,
                "metric_loss": "quadruplet",
            },
            1,
        ),
        (
            {
                "pretrain_epochs": 1,
                "epochs": 2,
                "metric_loss": "margin_sample_mining",
                "margin": "soft",
            },
            2,
        ),
        ({**REFINED, "stripes": 2, "ema_momentum": 0.9}, 1),
        ({"small_epochs": 2, "epochs": 1, "ema_momentum": 0.9, "mixstyle": 0.5}, 1),
    ],
    ids=[
        "one phase",
        "two members",
        "while parts are refined",
        "two members after small images",
        "two members in two phases",
        "in the first phase",
        "before the second",
        "in the second",
        "while parts are induced",
        "on small images",
    ],
)
def test_fit_interrupted_run_resumes_bit_equal(
    pedestrians, tmp_path, changes, epochs_before
) -> None:
    images = data.load("market1501", str(pedestrians)).train
    recipe = tiny(**changes)
    steps = data.pk_steps(images, 4, 2)

    class Stop(Exception):
        pass

    def train(run: runs.Run, die_at: int | None = None) -> list[keras.Model]:
        keras.utils.set_random_seed(3)
        plan = Plan.of(recipe, images)
        members = plan.members()

        class Die(keras.callbacks.Callback):
            seen = 0

            def on_train_batch_end(self, batch: int, logs=None) -> None:
                self.seen += 1
                if self.seen == die_at:
                    raise Stop

        return fitting.fit(members, plan, run, {}, seed=5, verbose=0, callbacks=[Die()])

    whole = train(runs.Run(tmp_path / "whole"))
    broken = runs.Run(tmp_path / "broken")
    with pytest.raises(Stop):
        train(broken, die_at=epochs_before * steps + 2)
    resumed = train(broken)
    for one, again in zip(whole, resumed, strict=True):
        for a, b in zip(one.get_weights(), again.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    rows = [json.loads(line) for line in broken.history_file.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    for number, model in enumerate(whole, start=1):
        saved = runs.Run(tmp_path / "whole").load_model(str(number))
        for a, b in zip(model.get_weights(), saved.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.nightly
def test_fit_pretrain_phases_switch_losses(pedestrians, tmp_path) -> None:
    images = data.load("market1501", str(pedestrians)).train
    recipe = tiny(pretrain_epochs=1, epochs=2, identity_weight=0.0)
    model = build.build_model(recipe, len(images.classes()[0]))
    run = runs.Run(tmp_path / "run")
    fitting.fit(model, Plan.of(recipe, images), run, {}, verbose=0)
    rows = [json.loads(line) for line in run.history_file.read_text().splitlines()]
    assert ["logits_identity" in row for row in rows] == [True, False, False]
    assert ["features_triplet_hard" in row for row in rows] == [False, True, True]
    assert [row["epoch"] for row in rows] == [1, 2, 3]


def test_recipe_camera_balanced_samples_every_camera(pedestrians) -> None:
    images = data.load("market1501", str(pedestrians)).train  # two in each of three cameras

    def cameras(**more) -> np.ndarray:
        recipe = tiny(num_instances=3, augment="none", **more)
        batches = fitting._batches(Plan.of(recipe, images), recipe, 0, 0, None).take(6)
        groups = np.stack([labels["camera"] for _, labels in batches]).reshape(-1, 3)
        return np.array([len(set(group)) for group in groups])

    assert (cameras(camera_balanced=True) == 3).all()
    assert (cameras() < 3).any()


def test_plan_images_without_columns_of_recipe_raise(pedestrians) -> None:
    images = data.load("market1501", str(pedestrians)).train
    for changes, column in (({"pose": True}, "keypoints"), ({"attribute_weight": 1}, "attributes")):
        with pytest.raises(
            InputError, match=f"`images` must be images with {column} for this recipe"
        ):
            Plan.of(tiny(**changes), images)


def test_replicas_shared_second_worker_gets_its_rows() -> None:
    replicas = Replicas()
    replicas.workers, replicas.number = 2, 1
    batches = replicas.shared(tf.data.Dataset.from_tensor_slices((np.arange(16),)).batch(4), 4)
    rows = [batch.numpy().tolist() for (batch,) in batches]
    assert rows == [[2, 3, 6, 7], [10, 11, 14, 15]]


def test_recipe_small_epochs_one_pixel_width_or_teacher_raises() -> None:
    with pytest.raises(InputError, match="`teacher` must be empty with small_epochs, got 'run'"):
        tiny(small_epochs=1, teacher="run", distillation="logits:1")
    with pytest.raises(InputError, match=r"`width` must be in \[1, 4096\], got 0"):
        _ = tiny(small_epochs=1, width=1).phases


def test_recipe_small_scale_sets_image_size() -> None:
    recipe = tiny(height=192, width=96, small_epochs=1, small_scale=0.6667)
    assert [phase.image_size for phase, _ in recipe.phases] == [(128, 64), (192, 96)]
    with pytest.raises(InputError, match=r"`small_scale` must be in \(0, 1\)"):
        tiny(small_scale=1.0)


def test_fit_small_images_first_passes_weights_to_next_phase(pedestrians, tmp_path) -> None:
    images = data.load("market1501", str(pedestrians)).train
    recipe = tiny(small_epochs=1, epochs=2, pretrain_epochs=1, freeze_epochs=0.5)
    assert [phase.image_size for phase, _ in recipe.phases] == [(16, 8), (32, 16), (32, 16)]
    assert [phase.freeze_epochs for phase, _ in recipe.phases] == [0.5, 0, 0]
    assert [phase.metric_weight for phase, _ in recipe.phases] == [1, 0, 1]
    seen: list[tuple[tuple[int, int], list[np.ndarray]]] = []

    class Look(keras.callbacks.Callback):
        def look(self, logs=None) -> None:
            size = models.image_size(self.model)
            seen.append((size, [v.numpy() for v in self.model.trainable_variables]))

        on_train_begin = on_train_end = look

    model = build.build_model(recipe, len(images.classes()[0]))
    start = [variable.numpy() for variable in model.trainable_variables]
    fitting.fit(
        model, Plan.of(recipe, images), runs.Run(tmp_path), {}, verbose=0, callbacks=[Look()]
    )
    assert [size for size, _ in seen] == [(16, 8)] * 2 + [(32, 16)] * 4
    end = [variable.numpy() for variable in model.trainable_variables]
    values = [start, *(weights for _, weights in seen), end]
    for before, after in zip(values[0::2], values[1::2], strict=True):
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
    assert np.abs(seen[1][1][0] - seen[0][1][0]).max() > 0


@pytest.mark.parametrize("name", losses.METRIC_LOSSES)
def test_build_metric_loss_every_name_uses_loss_defaults(name: str) -> None:
    own = build_metric_loss(tiny(metric_loss=name))
    default = losses.METRIC_LOSSES[name](name=own.name)
    assert own.get_config() == default.get_config()
    given = build_metric_loss(
        tiny(metric_loss=name, margin=0.7, metric_distance="cosine", normalize=False)
    )
    assert (given.margin, given.distance, given.normalize) == (0.7, "cosine", False)


def build_metric_loss(recipe: recipes.Recipe) -> losses.MetricLoss:
    return build.build_metric_loss(recipe, recipe.loss_settings())


def test_build_metric_loss_soft_margin_excludes_margin() -> None:
    assert build_metric_loss(tiny(margin="soft")).margin == "soft"
    assert build_metric_loss(tiny(margin="0.25")).margin == 0.25
    assert build_metric_loss(tiny(margin=0.5)).margin == 0.5
    with pytest.raises(
        InputError, match='`margin` must be a number of at least 0 or "soft", got -1'
    ):
        tiny(margin=-1.0)
    with pytest.raises(InputError, match="got 'hard'"):
        tiny(margin="hard")


def listed(arguments: dict) -> dict[str, list[tuple[str, float]]]:
    """Names and weights of the losses of each output."""
    return {
        output: [(one.name, weight) for one, weight in zip(several, weights, strict=True)]
        for (output, several), weights in zip(
            arguments["loss"].items(), arguments["loss_weights"].values(), strict=True
        )
    }


@pytest.mark.parametrize(
    ("recipe", "outputs"), [("classification", ["logits"]), ("joint", ["logits", "features"])]
)
def test_build_losses_standard_strategies_have_expected_losses(
    recipe: str, outputs: list[str]
) -> None:
    arguments = build.build_losses(recipes.get(recipe))
    assert [*arguments["loss"]] == [*arguments["loss_weights"]] == outputs


def test_build_losses_aligned_mutual_has_expected_losses() -> None:
    """Identity, global and local triplet loss, each once; and among two, logits and distances."""
    recipe = recipes.get("aligned_mutual")
    arguments = build.build_losses(recipe)
    assert listed(arguments) == {
        "logits": [("identity", 1)],
        "features": [("triplet_hard", 1), ("aligned_triplet", 1)],
    }
    distilled = build_distillation(recipe)
    assert distilled["distillation_weights"] == {"logits": [1], "features": [1]}
    # Mined, compared and distilled features have length 1.
    (distances,) = distilled["distillation_loss"]["features"]
    assert all(one.normalize for one in (*arguments["loss"]["features"], distances))
    assert len(recipe.backbones) == 2
    assert not recipes.get("aligned").distillation.active


def load_teacher(recipe: recipes.Recipe, identities: int) -> keras.Model | None:
    return recipe.load_teacher(identities)


def build_distillation(recipe: recipes.Recipe) -> dict:
    return recipe.distillation.compile_arguments(recipe.loss_settings())


def test_build_losses_margin_applies_to_both_triplet_losses() -> None:
    for change, expected in (({"margin": 0.5}, 0.5), ({"margin": "soft"}, "soft"), ({}, 0.3)):
        metric, local = build.build_losses(tiny(stripes=2, **change))["loss"]["features"]
        assert metric.margin == local.margin == expected


def test_build_losses_gather_compares_over_replicas() -> None:
    recipe = tiny(**TWO, stripes=2)
    metric, local = build.build_losses(recipe, gather=True)["loss"]["features"]
    settings = recipe.loss_settings(gather=True)
    distilled = recipe.distillation.compile_arguments(settings)["distillation_loss"]
    relations = (*distilled["features"], *distilled["embedding"])
    assert all(one.gather for one in (metric, local, *relations))


def test_build_model_pcb_classifies_each_part() -> None:
    assert listed(build.build_losses(recipes.get("pcb"))) == {
        "part_logits": [("identity", 1)],
        "features": [("triplet_hard", 1)],
    }
    model = build.build_model(tiny(parts=2, part_width=8, part_dropout=0.25), 5)
    assert model.output["part_logits"].shape == (None, 2, 5)
    assert model.get_layer("part_dropout").rate == 0.25
    assert model.get_layer("part_conv").units == 8
    assert not model.get_layer("part_pool").refinable


def test_build_heads_stripe_settings_give_local_head() -> None:
    recipe = tiny(
        stripes=3,
        stripe_width=8,
        stripe_pooling="max",
        stripe_order="bn_relu_conv",
        stripe_normalize=True,
    )
    (head,) = build.build_heads(recipe)
    assert head == heads.LocalHead(3, 8, "max", "bn_relu_conv", True)
    assert build.build_heads(tiny()) == []


@pytest.mark.first(1)
@pytest.mark.parametrize("members", [1, 2])
def test_learner_stripes_trains_local_features(members: int) -> None:
    """The sum of the three terms; with two members, all of theirs in the logs."""
    several = {"members": "tiny,tiny", "distillation": "logits:0.01,distances:0.001"}
    recipe = tiny(stripes=2, **(several if members == 2 else {}))
    plan = Plan(recipe, None, 7, 10, build.NONE, Replicas())
    trained = build.build_learner(plan.members(), recipe, plan)
    trained.run_eagerly = True
    x, y = batch()
    logs = trained.train_on_batch(tf.image.resize(x, (32, 16)), y, return_dict=True)
    prefix = "member1_" if members == 2 else ""
    names = ("logits_identity", "features_triplet_hard", "features_aligned_triplet")
    total = sum(logs[f"{prefix}{name}"] for name in names)
    if members == 2:
        total += 0.01 * logs["member1_logits_logit_distillation"]
        total += 0.001 * logs["member1_features_distance_distillation"]
    assert logs[f"{prefix}loss"] == pytest.approx(total, rel=1e-5)
    assert logs[f"{prefix}features_aligned_triplet"] > 0
    assert f"{prefix}features_aligned_triplet_active" in logs
    local = trained.members["member1"] if members == 2 else trained
    gradient_flows = local.get_layer("local_conv").kernel
    before = np.array(gradient_flows)
    trained.train_on_batch(tf.image.resize(x, (32, 16)), y)
    assert not np.array_equal(before, gradient_flows)


def test_fit_refined_parts_trains_assignment_in_second_phase(pedestrians, tmp_path) -> None:
    """Stripes; then the assignment alone, all else frozen; then everything with refined parts."""
    images = data.load("market1501", str(pedestrians)).train
    recipe = tiny(**REFINED)
    model = build.build_model(recipe, len(images.classes()[0]))
    seen = []

    class Look(keras.callbacks.Callback):
        def on_train_end(self, logs=None) -> None:
            seen.append({v.path: v.numpy() for v in model.weights})

    start = {v.path: v.numpy() for v in model.weights}
    fitting.fit(
        model, Plan.of(recipe, images), runs.Run(tmp_path / "r"), {}, verbose=0, callbacks=[Look()]
    )
    assignment = {"part_pool/kernel", "part_pool/bias"}

    def changed(before, after) -> set[str]:
        return {path for path in before if not np.array_equal(before[path], after[path])}

    first, second, third = (changed(*pair) for pair in zip([start, *seen[:2]], seen, strict=True))
    assert not first & {*assignment, "part_pool/refined"}
    assert "part_conv/kernel" in first
    assert second == {*assignment, "part_pool/refined"}
    assert third >= {*assignment, "part_conv/kernel"}
    assert [float(weights["part_pool/refined"]) for weights in seen] == [0, 1, 1]
    assert all(layer.trainable for layer in model.layers)


def test_strong_recipe_ends_with_large_images() -> None:
    """And is otherwise the default."""
    recipe = recipes.get("strong")
    small, large = (phase for phase, _ in recipe.phases)
    assert (small.image_size, small.epochs) == ((128, 64), 20)
    assert (large.image_size, large.epochs) == ((256, 128), 4)
    assert recipe.embedding == "features"
    changed = {key for key, value in small.settings.items() if value != BOT.settings[key]}
    assert changed == {"epochs", "embedding"}


def test_recipe_settings_match_setting_fields() -> None:
    names = [field.name for field in setting_fields()]
    assert len({*names}) == len(names), "each is a flag of its own"
    recipe = tiny(parts=2, part_width=8, label_smoothing=0.0)
    assert {*recipe.settings} == {*names}
    assert recipe.parts.part_width == 8
    assert tiny().replace(**recipe.settings) == recipe
    with pytest.raises(InputError, match=r"`setting` must be one of .*, got 'partz'"):
        recipe.replace(partz=3)


def test_train_command_help_lists_recipe_defaults() -> None:
    assert default_text("epochs") == (
        "24; 12 in finetune_metric, pcb_rpp; 4 in strong; 16 in distill; 20 in tiny"
    )
    assert default_text("margin") == "not set"
    assert default_text("flip") == "true; false in pair_verifier, tiny"
    assert default_text("learning_rate") == "0.0007; 0.001 in distill; 0.002 in tiny"
    helps = {one.name: one.metadata["help"] for one in command.settings}
    assert helps.keys() == BOT.settings.keys()
    assert all(f"Default: {default_text(name)}." in text for name, text in helps.items())


def test_base_run_of_version_0_2_0_keeps_renamed_settings(tmp_path) -> None:
    old = {"recipe": "tiny", "spread": True, "instances": 2, "soft_margin": True, "smoothing": 0.2}
    old |= {"dataset": "csv", "data_dir": "x", "flip": True}
    (tmp_path / "flags.json").write_text(json.dumps(old))
    options = base_options(TrainOptions(base_run="run"), runs.Run(tmp_path))
    assert options.settings == {
        "flip": True,
        "camera_balanced": True,
        "num_instances": 2,
        "label_smoothing": 0.2,
        "margin": "soft",
    }


def test_finetune_metric_recipe_has_two_phases() -> None:
    first, second = (phase for phase, _ in recipes.get("finetune_metric").phases)
    assert (first.identity_weight, first.metric_weight) == (1, 0)
    assert (second.identity_weight, second.metric_weight) == (0, 1)


class Constant(keras.layers.Layer):
    """Return the same embedding for every image, like a collapsed model."""

    def build(self, shape) -> None:
        self.point = self.add_weight(shape=(4,), initializer="ones")

    def call(self, x):
        return 0 * x[:, :4] + self.point


@pytest.mark.first(1)
@pytest.mark.parametrize(("margin", "value"), [(0.3, "0.3"), ("soft", "0.6931")])
def test_collapse_monitor_constant_embeddings_logs_warning(margin, value, caplog) -> None:
    model = keras.Sequential([keras.Input((5,)), Constant()])
    model.compile("sgd", losses.TripletHardLoss(margin))
    x, y = np.random.default_rng(0).normal(size=(12, 5)), np.repeat(np.arange(4), 3)
    options = {"epochs": 3, "batch_size": 12, "verbose": 0}
    model.fit(x, y, callbacks=[CollapseMonitor(patience=2)], **options)
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"near {value}, its value for equal embeddings" in message
    assert "in epoch 2" in message
    assert "learning rate" in message


def test_collapse_monitor_learner_names_term(caplog) -> None:
    trained = compiled()
    monitor = CollapseMonitor(4, 3)
    monitor.set_model(trained)
    monitor.on_train_begin()
    monitor.on_epoch_end(0, {"loss": 2.3, "logits_identity": 2.0, "features_triplet": 0.35})
    assert not caplog.records
    monitor.on_epoch_end(1, {"loss": 2.3, "logits_identity": 2.0, "features_triplet": 0.3001})
    assert "The loss 'features_triplet' was 0.3001 in epoch 2" in caplog.records[0].getMessage()


def test_collapse_monitor_separated_distances_log_no_warning(caplog) -> None:
    monitor = CollapseMonitor(4, 3)
    monitor.set_model(compiled())
    monitor.on_train_begin()
    names = ("features_triplet", "features_triplet_positive", "features_triplet_negative")
    logs = dict(zip(names, (0.3, 0.7, 0.95), strict=True))
    monitor.on_epoch_end(0, logs)
    assert not caplog.records
    monitor.on_epoch_end(1, {**logs, "features_triplet_positive": 0.9})
    assert "The loss 'features_triplet' was 0.3 in epoch 2" in caplog.records[0].getMessage()


def test_collapse_monitor_tiny_distances_log_warning(caplog) -> None:
    """Quadruplets of unit vectors ended so: nearer by a seventh, of next to nothing."""
    monitor = CollapseMonitor(4, 3)
    monitor.set_model(compiled())
    monitor.on_train_begin()
    names = ("features_triplet", "features_triplet_positive", "features_triplet_negative")
    logs = dict(zip(names, (0.297, 0.019, 0.022), strict=True))
    monitor.on_epoch_end(0, logs)
    assert "The loss 'features_triplet' was 0.297 in epoch 1" in caplog.records[0].getMessage()


@pytest.mark.nightly
def test_backup_and_restore_other_model_raises(tmp_path) -> None:
    trained = compiled()
    backup = Backup(tmp_path / "backup.weights.h5", steps=1)
    assert backup.restore(trained) == 0
    backup.set_model(trained)
    trained.train_on_batch(*batch())
    backup.on_epoch_end(0)
    other = models.build("tiny", 9, SIZE, weights="none")
    other.compile(keras.optimizers.Adam(1e-3), LOSSES)
    with pytest.raises(InputError, match="must be a backup of this model"):
        backup.restore(other)
    assert backup.restore(trained) == 1


def test_history_resumed_run_drops_repeated_epochs(tmp_path) -> None:
    path = tmp_path / "history.jsonl"
    first = History(path)
    for epoch in range(3):
        first.on_epoch_begin(epoch)
        first.on_epoch_end(epoch, {"loss": 3.0 - epoch})
    again = History(path, first_epoch=1)
    again.on_epoch_begin(1)
    again.on_epoch_end(1, {"loss": 9.0})
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["epoch"], row["loss"]) for row in rows] == [(1, 3.0), (2, 9.0)]
    assert all(0 <= row["seconds"] < 60 for row in rows)


def test_run_existing_folder_is_not_overwritten(tmp_path) -> None:
    run = runs.Run(tmp_path / "run")
    run.start({"seed": 1})
    run.start({"seed": 1})
    with pytest.raises(InputError, match="seed was 1 and is now 2"):
        run.start({"seed": 2})
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(run.model_file)
    run.finish({"after": {}})
    with pytest.raises(InputError, match="with a finished run"):
        run.start({"seed": 1})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="with other files"):
        runs.Run(tmp_path / "mine").start({})


def test_runs_default_same_flags_resumes_folder(tmp_path) -> None:
    root = str(tmp_path)
    first = runs.default("d", "r", {"seed": 1}, root)
    first.start({"seed": 1})
    second = runs.default("d", "r", {"seed": 1}, root)  # another is at work in the first
    assert second.directory.name == "d-r-2"
    first.release()
    again = runs.default("d", "r", {"seed": 1}, root)
    assert again.directory == first.directory
    assert runs.default("d", "r", {"seed": 2}, root).directory.name == "d-r-3"
    second.release()
    assert not second.directory.exists()  # for nothing was written


def test_run_folder_in_use_raises(tmp_path) -> None:
    first, second = (runs.Run(tmp_path / "r") for _ in range(2))
    first.start({"seed": 1})
    with pytest.raises(InputError, match=r"r` must be used by one process at a time"):
        second.start({"seed": 1})
    first.release()
    second.start({"seed": 1})
    (second.directory / ".0-1-x").touch()  # which a kill left
    second.flags_file.unlink()
    second.check({"seed": 2})


def test_run_broken_folder_raises(tmp_path) -> None:
    run = runs.Run(tmp_path)
    with pytest.raises(InputError, match=r"flags\.json` must be a text file.*No such file"):
        _ = run.flags
    run.flags_file.write_text("{broken")
    with pytest.raises(InputError, match=r"flags.json` must be JSON"):
        _ = run.flags
    with pytest.raises(InputError, match=r"model\.keras` must be a Keras model.*not found"):
        run.load_model()
    run.model_file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="must be a Keras model"):
        run.load_model()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "`epochs` must be at least 1, got 0"),
        ({"ema_momentum": 1.0}, r"`ema_momentum` must be in \[0, 1\), got 1.0"),
        (
            {"metric_weight": 0.0, "identity_weight": 0.0},
            "`metric_weight` must be positive if",
        ),
        ({"metric_loss": "tripletz"}, "one of circle, .*, got 'tripletz'"),
        ({"pretrain_epochs": -1}, "`pretrain_epochs` must be at least 0, got -1"),
        ({"ramp_up": -1.0}, "`ramp_up` must be at least 0, got -1.0"),
        ({"update": "at once"}, "`update` must be one of simultaneous, sequential, got 'at once'"),
        ({"average": "max"}, "`average` must be one of mean, sum, ensemble, got 'max'"),
        ({"distillation": "logits"}, "`distillation` must be a list of logits, cosine, dist"),
        ({"distillation": "logits:1,logits:2"}, "each once with a positive weight"),
        ({"distillation": "ranks:-1"}, "a positive weight, got 'ranks:-1'"),
        ({"distillation": "poses:1"}, "got 'poses:1'"),
        ({"stripes": -1}, "`stripes` must be at least 0, got -1"),
        ({"induction_epochs": 2}, "`parts` must be positive with induction_epochs"),
        ({"refinement_epochs": 1}, "`parts` must be positive"),
        ({"stripe_order": "relu"}, "`stripe_order` must be one of conv_bn_relu, bn_relu_conv, got"),
        ({"stripe_pooling": "gem"}, "`stripe_pooling` must be one of avg, max, got 'gem'"),
    ],
)
def test_recipe_invalid_settings_raises(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny(**changes)


def test_recipe_several_members_sets_distillation() -> None:
    recipe = recipes.get("mutual")
    assert recipe.backbones == ["mobilenetv2", "mobilenetv2"]
    assert recipe.distillation.weights == {"logits": 1, "distances": 1}
    assert recipe.distillation.graph == "all"
    given = tiny(**TWO, edges="member1 > member2, teacher>member2", metric_distance="cosine")
    assert given.distillation.graph == [("member1", "member2"), ("teacher", "member2")]
    distilled = build_distillation(given)
    assert distilled["distillation_weights"] == {
        "logits": [1.0],
        "features": [0.1],
        "embedding": [0.1],
    }
    assert distilled["distillation_loss"]["features"][0].distance == "cosine"
    assert recipes.get("distill_logits").backbones == ["mobilenetv2"]


def test_load_teacher_incomplete_distillation_raises() -> None:
    for changes in ({"distillation": "logits:1"}, {"members": "tiny,tiny"}, {"teacher": "run"}):
        with pytest.raises(
            InputError, match="`distillation` must be set if and only if there is a teacher"
        ):
            load_teacher(tiny(**changes), 4)
    assert load_teacher(tiny(), 4) is None
    assert load_teacher(tiny(**TWO), 4) is None


def test_load_teacher_mismatched_identities_or_size_raises(tmp_path) -> None:
    run = runs.Run(tmp_path / "teacher")
    run.directory.mkdir()
    run.save_models([models.build("tiny", 4, SIZE, weights="none")])
    distill = tiny(teacher=str(run.directory), distillation="logits:1")
    assert load_teacher(distill, 4).output["logits"].shape == (None, 4)
    with pytest.raises(InputError, match=r"5 identities, got .* and 4 identities\. If only the"):
        load_teacher(distill, 5)
    ranks = tiny(teacher=str(run.directory), distillation="ranks:1")
    assert load_teacher(ranks, 5) is not None
    with pytest.raises(InputError, match=r"of 64×16 pixels and .*, got .* of images of 32×16"):
        load_teacher(tiny(teacher=str(run.directory), distillation="logits:1", height=64), 4)


@pytest.mark.first(1)
@pytest.mark.parametrize("members", ["", "tiny,tiny"])
def test_fit_teacher_distills_into_each_student(pedestrians, tmp_path, members) -> None:
    images = data.load("market1501", str(pedestrians)).train
    recipe = tiny(members=members, teacher="unused", distillation="logits:1", epochs=1)
    plan = Plan.of(recipe, images)
    teacher = models.build("tiny", plan.num_identities, SIZE, weights="none")
    before = teacher.get_weights()
    students = plan.members()
    run = runs.Run(tmp_path / "run")
    fitting.fit(students, plan, run, {}, teacher=teacher, verbose=0)
    (row,) = [json.loads(line) for line in run.history_file.read_text().splitlines()]
    assert row[f"{'member2_' if members else ''}logits_logit_distillation"] > 0
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def several(run: runs.Run, count: int) -> list[keras.Model]:
    run.directory.mkdir()
    made = [models.build("tiny", 3 + k, SIZE, weights="none") for k in range(count)]
    run.save_models(made)
    return made


def test_run_load_model_selects_member(tmp_path) -> None:
    run = runs.Run(tmp_path / "run")
    made = several(run, 3)
    for number, model in enumerate(made, start=1):
        loaded = run.load_model(str(number))
        assert loaded.output["logits"].shape == model.output["logits"].shape
    assert run.load_model().output["logits"].shape[-1] == 3
    joint = run.load_model("ensemble")
    assert joint.output["embedding"].shape == (None, 3 * 128)
    files = {file.name for file in run.directory.iterdir()}
    assert {"model.keras", "model-2.keras", "model-3.keras"} <= files
    for wrong in ("4", "0", "worst"):
        with pytest.raises(InputError, match=f"one of 1, 2, 3, .* got '{wrong}'"):
            run.load_model(wrong)
    with pytest.raises(InputError, match=r"`member` must be one of .*, got 'best'"):
        run.load_model("best")
    scores = {"1": {"mAP": 0.3}, "2": {"mAP": 0.5}, "3": {"mAP": 0.4}, "ensemble": {"mAP": 0.9}}
    run.finish({"members": scores})
    assert run.load_model("best").output["logits"].shape[-1] == 4


def test_run_load_model_ensemble_of_single_model_raises(tmp_path) -> None:
    run = runs.Run(tmp_path / "run")
    several(run, 1)
    assert run.load_model("1").name == "embedder"
    with pytest.raises(InputError, match="`member` must be one of 1, got 'ensemble'"):
        run.load_model("ensemble")


def pair(**options) -> MutualLearner:
    keras.utils.set_random_seed(0)
    members = [models.build("tiny", 4, SIZE, weights="none") for _ in range(2)]
    made = MutualLearner(members)
    distilled = {"logits": losses.LogitDistillationLoss()}
    made.compile(keras.optimizers.Adam(1e-3), LOSSES, distillation_loss=distilled, run_eagerly=True)
    return made


@pytest.mark.nightly
def test_retrieval_evaluation_scores_each_member(pedestrians) -> None:
    dataset = data.load("market1501", str(pedestrians))
    callback = RetrievalEvaluation(dataset.query, dataset.gallery)
    learner = pair()
    history = learner.fit(*batch(), epochs=1, verbose=0, callbacks=[callback]).history
    each = [callback.score(model) for model in learner.members.values()]
    for name, result in zip(learner.members, each, strict=True):
        assert history[f"val_{name}_mAP"] == [result.mAP]
        assert history[f"val_{name}_rank1"] == [result.rank(1)]
    assert history["val_mAP"] == [max(result.mAP for result in each)]


def test_collapse_monitor_mutual_learner_names_member(caplog) -> None:
    monitor = CollapseMonitor(4, 3)
    monitor.set_model(pair())
    monitor.on_train_begin()
    monitor.on_epoch_end(0, {"member1_features_triplet": 0.9, "member2_features_triplet": 0.3})
    (message,) = [record.getMessage() for record in caplog.records]
    assert "The loss 'member2_features_triplet' was 0.3" in message


@pytest.mark.slow
def test_backup_restore_resumes_dropout_seeds(tmp_path) -> None:
    """Dropout draws the same numbers as in an uninterrupted run."""

    def noisy() -> keras.Model:
        model = models.build("tiny", 4, SIZE, weights="none")
        logits = keras.layers.Dropout(0.5, seed=1)(model.output["logits"])
        made = models.ReidModel(model.input, {**model.output, "logits": logits})
        made.compile(keras.optimizers.Adam(1e-3), LOSSES, run_eagerly=True)
        return made

    keras.utils.set_random_seed(0)
    whole = noisy()
    backup = Backup(tmp_path / "backup.weights.h5", steps=1)
    backup.set_model(whole)
    whole.train_on_batch(*batch())
    backup.on_epoch_end(0)
    resumed = noisy()
    assert backup.restore(resumed) == 1
    for one in (whole, resumed):
        one.train_on_batch(*batch(1))
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_recipes_get_unknown_name_raises() -> None:
    with pytest.raises(InputError, match=r"bot, classification, .*, got 'bott'"):
        recipes.get("bott")


# --- Sample weights, metrics, and models in a plain compile


def weighted(learner, weights):
    images, labels = batch()
    return learner.train_on_batch(images, labels, weights, return_dict=True)


def test_learner_sample_weight_scales_terms() -> None:
    trained = compiled(keras.optimizers.SGD(0.0), seed=1)
    images, labels = batch()
    count = len(labels["identity"])
    weights = np.linspace(0, 2, count).astype("float32")
    logs = trained.test_on_batch(images, labels, weights, return_dict=True)
    outputs = trained(images, training=False)
    for output, loss in LOSSES.items():
        config = {**loss.get_config(), "reduction": None}
        each = type(loss).from_config(config)(labels["identity"], outputs[output]).numpy()
        expected = (weights * each).mean()
        assert logs[f"{output}_{loss.name}"] == pytest.approx(expected, rel=1e-5)
    by_label = trained.test_on_batch(images, labels, {"identity": weights}, return_dict=True)
    assert by_label == pytest.approx(logs, rel=1e-6)


def test_learner_zero_sample_weight_trains_nothing() -> None:
    loss = {"logits": losses.IdentityLoss()}
    trained = compiled(keras.optimizers.SGD(1.0), seed=1, loss=loss)
    before = [v.numpy() for v in trained.trainable_variables]
    images, labels = batch()
    trained.train_on_batch(images, labels, np.zeros(len(labels["identity"]), "float32"))
    for variable, value in zip(trained.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_compile_output_metrics_are_logged_and_saved(tmp_path) -> None:
    metric = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    trained = compiled("sgd", seed=1, metrics={"logits": ["accuracy", metric]})
    images, labels = batch()
    logs = trained.test_on_batch(images, labels, return_dict=True)
    logits = trained(images, training=False)["logits"].numpy()
    right = (logits.argmax(axis=1) == np.asarray(labels["identity"])).mean()
    assert logs["logits_accuracy"] == pytest.approx(right)
    assert logs["logits_top2"] >= logs["logits_accuracy"]
    assert {"loss", "logits_identity", "features_triplet_active"} <= {*logs}
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat(3)
    history = trained.fit(batches, verbose=0, shuffle=False).history
    assert 0 <= history["logits_accuracy"][0] <= 1
    trained.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert "logits_top2" in again.test_on_batch(images, labels, return_dict=True)


def plain_model() -> keras.Model:
    """Model of a user with two outputs."""
    pixels = keras.Input((*SIZE, 3))
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, 2)(pixels))
    features = keras.layers.Dense(6, name="features")(features)
    logits = keras.layers.Dense(4, name="logits")(features)
    return keras.Model(pixels, {"features": features, "logits": logits})


@pytest.mark.first(1)
@pytest.mark.parametrize("form", ["dict", "one", "list"])
def test_collapse_monitor_plain_fit_of_multiple_outputs_logs_warning(caplog, form) -> None:
    model = plain_model()
    triplet, identity = TripletHardLoss(margin=0.3), losses.IdentityLoss()
    compiled = {
        "dict": {"features": triplet, "logits": identity},
        "one": {"features": triplet},
        "list": [triplet, identity],
    }[form]
    if form == "list":
        model = keras.Model(model.input, [*model.output.values()])
    if form == "one":
        model = keras.Model(model.input, {"features": model.output["features"]})
    model.compile(keras.optimizers.SGD(0.0), loss=compiled)
    x = np.ones((12, *SIZE, 3), "float32")  # all images are equal, and so all embeddings
    y = np.repeat(np.arange(4), 3)
    labels = [y, y] if form == "list" else dict.fromkeys(compiled, y)
    model.fit(x, labels, batch_size=12, verbose=0, callbacks=[CollapseMonitor(4, 3)])
    assert any("The model has collapsed" in record.getMessage() for record in caplog.records)


@pytest.mark.slow
def test_build_model_trains_in_plain_compile(tmp_path) -> None:
    keras.utils.set_random_seed(0)
    model = models.build("tiny", 4, SIZE, weights="none")
    images, labels = batch()
    for chosen in ({"features": TripletHardLoss(), "logits": losses.IdentityLoss()}, None):
        model.compile(
            "sgd",
            loss=chosen or {"logits": losses.IdentityLoss()},
            metrics={"logits": "accuracy"},
        )
        for given in (labels, {"features": labels["identity"], "logits": labels["identity"]}):
            logs = model.train_on_batch(images, given, return_dict=True)
            assert 0 <= logs["logits_accuracy"] <= 1
            assert np.isfinite(logs["loss"])
    outputs = model(images, training=False)
    expected = losses.IdentityLoss()(labels["identity"], outputs["logits"])
    whole = {"batch_size": len(images), "verbose": 0, "return_dict": True}
    logs = model.evaluate(images, labels, **whole)
    assert logs["loss"] == pytest.approx(float(expected), rel=1e-5)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.evaluate(images, labels, **whole) == pytest.approx(logs, rel=1e-5)


@pytest.mark.slow
def test_retrieval_evaluation_single_output_model_is_scored(pedestrians) -> None:
    dataset = data.load("market1501", pedestrians)
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),  # float pixels
            keras.layers.Conv2D(8, 3, 2, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    model.compile("adam", loss=TripletHardLoss(0.3))
    scored = RetrievalEvaluation(dataset.query, dataset.gallery)
    batches = data.pk_batches(dataset.train, 4, 2, SIZE).map(lambda x, y: (x, y["identity"]))
    options = {"steps_per_epoch": 2, "verbose": 0, "shuffle": False}
    history = model.fit(batches, callbacks=[scored], **options).history
    assert 0 < history["val_mAP"][0] <= 1
    assert history["val_rank1"][0] == scored.score(model).rank(1)
    maps = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Conv2D(8, 3, 2)])
    with pytest.raises(InputError, match=r"must have an output named 'embedding'"):
        scored.score(maps)
