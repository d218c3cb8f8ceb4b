"""Mutual learning and distillation: training steps against steps written out, and saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicas import answer_of

from keras_reid import losses
from keras_reid.errors import InputError
from keras_reid.models import ReidModel
from keras_reid.training import Distiller, MutualLearner

SIZE = (8, 4)
OWN = {
    "loss": {
        "logits": losses.IdentityLoss(0.1, name="identity"),
        "features": losses.TripletHardLoss(0.3, name="triplet"),
    },
    "loss_weights": {"features": 0.5},
}
DISTILLED = {
    "distillation_loss": {
        "logits": losses.LogitDistillationLoss(2.0, name="likeness"),
        "features": losses.DistanceDistillationLoss(name="distances"),
    },
    "distillation_weights": {"logits": 0.7, "features": 0.3},
}


def batch(seed: int = 0, p: int = 4, k: int = 3) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    images = np.random.default_rng(seed).integers(0, 256, (p * k, *SIZE, 3), dtype=np.uint8)
    return tf.constant(images), {"identity": tf.constant(np.repeat(np.arange(p), k), tf.int32)}


def build(seed: int, noise: bool = False, width: int = 8) -> keras.Model:
    """A small embedder with batch statistics, and optionally a layer with a seed."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((*SIZE, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    x = keras.layers.Dense(16)(keras.layers.Flatten()(x))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.GaussianNoise(0.1, seed=seed)(x) if noise else x
    features = keras.layers.Dense(width, name="features")(x)
    embedding = keras.layers.BatchNormalization(momentum=0.9, name="embedding")(features)
    logits = keras.layers.Dense(4, name="logits")(embedding)
    outputs = {"features": features, "embedding": embedding, "logits": logits}
    return ReidModel(images, outputs)


def members(count: int = 2, **options) -> list[ReidModel]:
    return [build(seed, **options) for seed in range(count)]


def adam() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(1e-3, epsilon=1e-3)


def mutual(count: int = 2, eagerly: bool = True, **options) -> MutualLearner:
    """Eager where a graph would be traced for a step or two."""
    return compiled(MutualLearner(members(count), **options), run_eagerly=eagerly)


def compiled(learner, optimizer=None, **options):
    learner.compile(optimizer or adam(), **OWN, **DISTILLED, **options)
    return learner


def alone(seed: int = 0) -> ReidModel:
    """One model with the same losses."""
    model = build(seed)
    model.compile(adam(), **OWN, run_eagerly=True)
    return model


def own_loss(labels, out):
    identity = losses.IdentityLoss(0.1)(labels["identity"], out["logits"])
    return identity + 0.5 * losses.TripletHardLoss(0.3)(labels["identity"], out["features"])


def likeness(teacher, own):
    """Temperature 2 divergence of logits, and squared differences of distances, weighted."""
    t, s = (tf.nn.log_softmax(out["logits"] / 2) for out in (teacher, own))
    logits = 4 * tf.reduce_mean(tf.reduce_sum(tf.exp(t) * (t - s), axis=1))

    def matrix(x):
        squared = tf.reduce_sum((x[:, None] - x[None]) ** 2, axis=-1)
        return tf.sqrt(tf.where(squared > 0, squared, 1)) * tf.cast(squared > 0, tf.float32)

    gap = matrix(teacher["features"]) - matrix(own["features"])
    return 0.7 * logits + 0.3 * tf.reduce_mean(gap**2)


def by_hand(nets, edges, batches, sequential=False):
    """The steps of mutual learning without the package's learner; batch statistics once a step."""
    optimizers = [adam() for _ in nets]
    history = []
    for images, labels in batches:
        said = [net(images, training=True) for net in nets]
        settled = [[v.numpy() for v in net.non_trainable_variables] for net in nets]
        constants = [{k: v.numpy() for k, v in out.items()} for out in said]
        total = 0.0
        updates = []
        for k, net in enumerate(nets):
            teachers = [a for a, b in edges if b == k]
            with tf.GradientTape() as tape:
                out = net(images, training=True)
                loss = own_loss(labels, out)
                loss += sum(likeness(constants[a], out) for a in teachers) / len(teachers)
            updates.append(tape.gradient(loss, net.trainable_variables))
            total += float(loss)
            if sequential:
                optimizers[k].apply_gradients(zip(updates[k], net.trainable_variables, strict=True))
                constants[k] = {n: v.numpy() for n, v in net(images, training=True).items()}
        if not sequential:
            for net, optimizer, gradient in zip(nets, optimizers, updates, strict=True):
                optimizer.apply_gradients(zip(gradient, net.trainable_variables, strict=True))
        for net, values in zip(nets, settled, strict=True):
            for variable, value in zip(net.non_trainable_variables, values, strict=True):
                variable.assign(value)
        history.append(total)
    return history


ALL_OF_TWO = [(0, 1), (1, 0)]
ALL_OF_THREE = [(a, b) for a in range(3) for b in range(3) if a != b]
RING = [(2, 0), (0, 1), (1, 2)]


@pytest.mark.first(2)
@pytest.mark.parametrize("update", ["simultaneous", "sequential"])
@pytest.mark.parametrize(
    ("count", "given", "edges"),
    [
        (2, "all", ALL_OF_TWO),
        (3, "all", ALL_OF_THREE),
        (3, "ring", RING),
        (3, [("member3", "member1"), ("member1", "member2"), ("member2", "member3")], RING),
    ],
    ids=["two", "three", "ring", "list"],
)
def test_mutual_learner_steps_match_handwritten_loop(update, count, given, edges) -> None:
    learner = mutual(count, eagerly=count > 2, update=update, edges=given)
    batches = [batch(seed) for seed in range(3)]
    logs = [learner.train_on_batch(*some, return_dict=True) for some in batches]
    nets = members(count)
    truth = by_hand(nets, edges, batches, sequential=update == "sequential")
    assert logs[0]["loss"] == pytest.approx(truth[0], rel=1e-5)
    for net, ours in zip(nets, learner.members.values(), strict=True):
        for a, b in zip(net.get_weights(), ours.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=3e-5)


def test_mutual_learner_ring_member_learns_from_previous() -> None:
    learner = MutualLearner(members(3), edges="ring", teachers=[build(5)])
    ring = [("member3", "member1"), ("member1", "member2"), ("member2", "member3")]
    assert learner.edges == [*ring, *(("teacher", name) for name in learner.members)]


def test_mutual_learner_logs_contain_every_member() -> None:
    learner = mutual()
    logs = learner.train_on_batch(*batch(), return_dict=True)
    statistics = {f"features_triplet_{statistic}" for statistic in losses.STATISTICS}
    distilled = {"logits_likeness", "features_distances"}
    own = {"loss", "logits_identity", "features_triplet", *distilled, *statistics}
    assert set(logs) == {"loss", *(f"member{k}_{name}" for k in (1, 2) for name in own)}
    assert logs["loss"] == pytest.approx(logs["member1_loss"] + logs["member2_loss"], rel=1e-6)
    one = {name: logs[f"member1_{name}"] for name in own}
    weighted = one["logits_identity"] + 0.5 * one["features_triplet"]
    weighted += 0.7 * one["logits_likeness"] + 0.3 * one["features_distances"]
    assert one["loss"] == pytest.approx(weighted, rel=1e-5)


@pytest.mark.nightly
def test_mutual_learner_different_embedding_sizes_distills_relations() -> None:
    nets = {"narrow": build(0, width=5), "wide": build(1, width=9)}
    learner = MutualLearner(nets)
    relations = {
        "features": losses.DistanceDistillationLoss(normalize=True, name="distances"),
        "embedding": losses.RankDistillationLoss(name="ranks"),
    }
    learner.compile(adam(), **OWN, distillation_loss=relations, run_eagerly=True)
    logs = [learner.train_on_batch(*batch(), return_dict=True) for _ in range(12)]
    for name in ("features_distances", "embedding_ranks"):
        for net in nets:
            assert 0 < logs[-1][f"{net}_{name}"] < logs[0][f"{net}_{name}"]
    narrow, wide = (logs[0][f"{net}_features_distances"] for net in nets)
    assert narrow == pytest.approx(wide, rel=1e-5)


def test_mutual_learner_teacher_member_gets_no_student_gradient() -> None:
    """A member without teachers takes the same steps as a single model."""
    learner = mutual(edges=[("member1", "member2")])
    single = alone()
    for seed in range(3):
        logs = learner.train_on_batch(*batch(seed), return_dict=True)
        single.train_on_batch(*batch(seed))
    assert logs["member1_logits_likeness"] == 0 < logs["member2_logits_likeness"]
    for a, b in zip(learner.members["member1"].get_weights(), single.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_mutual_learner_equal_members_stay_equal() -> None:
    learner = compiled(MutualLearner([build(0), build(0)]), run_eagerly=True)
    for seed in range(2):
        logs = learner.train_on_batch(*batch(seed), return_dict=True)
        assert logs["member1_logits_likeness"] == logs["member1_features_distances"] == 0
    one, two = (model.get_weights() for model in learner.members.values())
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.nightly
def test_mutual_learner_average_modes_return_expected_losses() -> None:
    said = {
        average: mutual(3, average=average).train_on_batch(*batch(), return_dict=True)
        for average in ("mean", "sum", "ensemble")
    }
    for name in ("logits_likeness", "features_distances"):
        mean, total, united = (said[how][f"member1_{name}"] for how in said)
        assert total == pytest.approx(2 * mean, rel=1e-5)
        assert 0 < united < mean
    nets = members(3)
    first, *others = (net(batch()[0], training=True)["logits"] for net in nets)
    distilling = losses.LogitDistillationLoss(2.0)
    expected = distilling(distilling.ensemble(others), first)
    assert said["ensemble"]["member1_logits_likeness"] == pytest.approx(float(expected), rel=1e-4)


def test_mutual_learner_ramp_up_scales_distillation_linearly() -> None:
    learner = mutual(ramp_up=4)
    for step in range(1, 7):
        logs = learner.train_on_batch(*batch(step), return_dict=True)
        learner.reset_metrics()
        one = {name.removeprefix("member2_"): value for name, value in logs.items()}
        distilled = 0.7 * one["logits_likeness"] + 0.3 * one["features_distances"]
        own = one["logits_identity"] + 0.5 * one["features_triplet"]
        share = (logs["member2_loss"] - own) / distilled
        assert share == pytest.approx(min(step / 4, 1), abs=1e-3)


@pytest.mark.first(1)
@pytest.mark.parametrize("update", ["simultaneous", "sequential"])
def test_mutual_learner_views_are_assigned_to_members(update) -> None:
    (one, labels), (two, _) = batch(0), batch(1)
    learner = mutual(update=update)
    logs = learner.train_on_batch((one, two), labels, return_dict=True)
    for seed, images, name in zip(range(2), (one, two), learner.members, strict=True):
        expected = alone(seed).train_on_batch(images, labels, return_dict=True)["logits_identity"]
        assert logs[f"{name}_logits_identity"] == pytest.approx(expected, rel=1e-5)
    same, given = mutual(update=update), mutual(update=update)
    same.train_on_batch(one, labels)
    given.train_on_batch((one, one), labels)
    for a, b in zip(same.get_weights(), given.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="tuple of 2 tensors, one for each member, got 3"):
        learner.train_on_batch((one, two, one), labels)


@pytest.mark.first(1)
@pytest.mark.parametrize("update", ["simultaneous", "sequential"])
def test_mutual_learner_batch_statistics_and_seeds_update_once_per_step(update) -> None:
    learner = compiled(MutualLearner(members(3, noise=True), update=update), run_eagerly=True)
    net = build(0, noise=True)
    images, labels = batch()
    learner.train_on_batch(images, labels)
    net(images, training=True)
    ours = learner.members["member1"].non_trainable_variables
    for a, b in zip(ours, net.non_trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-6)


def state(*nets: keras.Model) -> list[np.ndarray]:
    """All that a model is: weights, batch statistics, seeds."""
    return [variable.numpy() for net in nets for variable in net.variables]


def assert_equal(before: list[np.ndarray], after: list[np.ndarray]) -> None:
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_mutual_learner_evaluate_and_predict_leave_state_unchanged() -> None:
    nets, teacher = members(2, noise=True), build(7, noise=True)
    learner = compiled(MutualLearner(nets, teachers=[teacher]), run_eagerly=True)
    images, labels = batch()
    learner.train_on_batch(images, labels)
    before = state(*nets, teacher)
    scores = learner.evaluate(images, labels, verbose=0, return_dict=True)
    out = learner.predict(images, verbose=0)
    assert_equal(before, state(*nets, teacher))
    assert scores["member1_logits_likeness"] > 0
    assert out["member2"]["logits"].shape == (12, 4)


def test_distiller_step_matches_handwritten_step() -> None:
    teacher, student = build(5), build(0)
    distiller = compiled(Distiller(teacher, student), run_eagerly=True)
    before = state(teacher)
    images, labels = batch()
    logs = distiller.train_on_batch(images, labels, return_dict=True)
    net, optimizer = build(0), adam()
    with tf.GradientTape() as tape:
        out = net(images, training=True)
        loss = own_loss(labels, out) + likeness(teacher(images, training=False), out)
    gradients = tape.gradient(loss, net.trainable_variables)
    optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
    assert logs["loss"] == pytest.approx(float(loss), rel=1e-5)
    own = {"logits_identity", "features_triplet", "features_triplet_active"}
    assert {*own, "logits_likeness", "features_distances"} <= set(logs)
    for a, b in zip(net.get_weights(), distiller.student.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert_equal(before, state(teacher))


def test_distiller_fit_leaves_teacher_unchanged() -> None:
    teacher = build(5, noise=True)
    teacher.layers[2].trainable = False
    teacher.compile("sgd", {"logits": "mse"})
    before, flags = state(teacher), [layer.trainable for layer in teacher.layers]
    optimizer, names = teacher.optimizer, [layer.name for layer in teacher.layers]
    distiller = compiled(Distiller(teacher, build(0)))
    distiller.fit(*batch(), epochs=2, verbose=0)
    assert_equal(before, state(teacher))
    assert [layer.trainable for layer in teacher.layers] == flags
    assert [layer.name for layer in teacher.layers] == names
    assert teacher.trainable
    assert teacher.optimizer is optimizer


def test_mutual_learner_frozen_teacher_is_averaged_with_members() -> None:
    teacher = build(9)
    learner = MutualLearner(members(), teachers=[teacher])
    assert set(learner.edges) == {
        ("member1", "member2"),
        ("member2", "member1"),
        ("teacher", "member1"),
        ("teacher", "member2"),
    }
    compiled(learner, run_eagerly=True)
    before = state(teacher)
    images, labels = batch()
    logs = learner.train_on_batch(images, labels, return_dict=True)
    assert_equal(before, state(teacher))
    nets = members()
    own, peer = (net(images, training=True)["logits"] for net in nets)
    frozen = teacher(images, training=False)["logits"]
    kl = losses.LogitDistillationLoss(2.0)
    expected = (float(kl(peer, own)) + float(kl(frozen, own))) / 2
    assert logs["member1_logits_likeness"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.first(1)
@pytest.mark.parametrize("kind", ["simultaneous", "sequential", "distilled"])
def test_learners_saved_and_loaded_resume_bit_equal(kind, tmp_path) -> None:
    if kind == "distilled":
        learner = Distiller(build(5), build(0, noise=True), ramp_up=3)
    else:
        nets = {"small": build(0, noise=True), "other": build(1, noise=True)}
        learner = MutualLearner(nets, update=kind, teachers=[build(5)], ramp_up=3, average="sum")
    compiled(learner, keras.optimizers.AdamW(1e-3))
    learner.fit(*batch(0), verbose=0)
    learner.save(tmp_path / "learner.keras")
    loaded = keras.saving.load_model(tmp_path / "learner.keras")
    for name in ("update", "average", "ramp_up", "edges"):
        assert getattr(loaded, name) == getattr(learner, name)
    for one in (learner, loaded):
        for seed in range(1, 4):
            one.fit(*batch(seed), shuffle=False, verbose=0)
    assert_equal(state(learner), state(loaded))
    moments = [member.optimizer.variables for member in learner.members.values()]
    again = [member.optimizer.variables for member in loaded.members.values()]
    for ours, theirs in zip(moments, again, strict=True):
        assert_equal([v.numpy() for v in ours], [v.numpy() for v in theirs])


def test_mutual_learner_compile_gives_each_member_its_optimizer() -> None:
    learner = MutualLearner(members())
    compiled(learner, [keras.optimizers.SGD(0.0), keras.optimizers.SGD(0.1)], run_eagerly=True)
    before = [net.trainable_variables[0].numpy() for net in learner.members.values()]
    learner.train_on_batch(*batch())
    after = [net.trainable_variables[0].numpy() for net in learner.members.values()]
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])
    compiled(learner, "sgd")
    one, two = (member.optimizer for member in learner.members.values())
    assert one is not two
    shared = adam()
    with pytest.raises(InputError, match="a list of 2 different ones, one for each member, got 1"):
        compiled(learner, [shared, shared])
    with pytest.raises(InputError, match="got 1"):
        compiled(learner, [shared])


def test_mutual_learner_ema_is_applied_after_fit() -> None:
    learner = mutual()
    averaging = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    compiled(learner, averaging, run_eagerly=True)
    plain = compiled(mutual(), keras.optimizers.SGD(0.1), run_eagerly=True)
    kept = [net.trainable_variables[0].numpy() for net in plain.members.values()]
    average = [0 * first for first in kept]
    for seed in range(2):
        plain.train_on_batch(*batch(seed))
        now = [net.trainable_variables[0].numpy() for net in plain.members.values()]
        average = [0.5 * a + 0.5 * b if seed else b for a, b in zip(average, now, strict=True)]
        learner.train_on_batch(*batch(seed)) if seed == 0 else learner.fit(*batch(seed), verbose=0)
    for net, expected in zip(learner.members.values(), average, strict=True):
        np.testing.assert_allclose(net.trainable_variables[0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mutual_learner_mixed_float16_uses_loss_scaling_per_member(policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        learner = mutual()
        logs = learner.train_on_batch(*batch(), return_dict=True)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert all(np.isfinite(value) for value in logs.values())
    assert 0 < logs["loss"] < 40, "the reported loss is not scaled"
    scaled = [
        isinstance(member.optimizer, keras.optimizers.LossScaleOptimizer)
        for member in learner.members.values()
    ]
    assert scaled == [policy == "mixed_float16"] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": "star"}, '`edges` must be "all", "ring" or different pairs .*, got .star.'),
        ({"edges": []}, "different pairs .* at least one, got \\[\\]"),
        ({"edges": [("member1", "member3")]}, r"got \[\('member1', 'member3'\)\]. Teachers are"),
        ({"edges": [("member1", "member1")]}, "or different pairs"),
        ({"edges": [("member1", "member2")] * 2}, "or different pairs"),
        ({"update": "parallel"}, "`update` must be one of simultaneous, sequential"),
        ({"average": "median"}, "`average` must be one of mean, sum, ensemble"),
        ({"ramp_up": -1}, "`ramp_up` must be at least 0, got -1"),
    ],
)
def test_mutual_learner_invalid_arguments_raises(options, message) -> None:
    with pytest.raises(InputError, match=message):
        MutualLearner(members(), **options)


@pytest.mark.parametrize(
    ("options", "average", "message"),
    [
        ({}, "mean", "`distillation_loss` must be a dict by output, got None"),
        (
            {"distillation_loss": {"local": losses.LogitDistillationLoss()}},
            "mean",
            r"`distillation_loss` must be keyed by outputs of the model, got \['local'\]",
        ),
        (
            {
                "distillation_loss": {"logits": losses.LogitDistillationLoss()},
                "distillation_weights": {"features": 1.0},
            },
            "mean",
            "`distillation_weights` must be a number for each loss",
        ),
        (
            {"distillation_loss": {"logits": keras.losses.MeanSquaredError()}},
            "ensemble",
            '`average` must be "mean" or "sum"',
        ),
    ],
)
def test_mutual_learner_compile_invalid_distillation_raises(options, average, message) -> None:
    learner = MutualLearner(members(), average=average)
    with pytest.raises(InputError, match=message):
        learner.compile(adam(), **OWN, **options)


def test_mutual_learner_invalid_members_raises() -> None:
    net = build(0)
    with pytest.raises(InputError, match="`members` must be models and names that differ"):
        MutualLearner([net, net])
    with pytest.raises(InputError, match="at least one"):
        MutualLearner([net])
    with pytest.raises(InputError, match=r"those of `teachers`, got \['a', 'a'\]"):
        MutualLearner({"a": net}, teachers={"a": build(1)})
    with pytest.raises(InputError, match="`model` must be functional with a dict of outputs"):
        MutualLearner([net, keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])])


def test_mutual_learner_keras_loss_distills_outputs() -> None:
    """A loss of Keras between the outputs of both."""
    learner = MutualLearner(members())
    squares = {"logits": keras.losses.MeanSquaredError(name="mse")}
    learner.compile(adam(), **OWN, distillation_loss=squares, run_eagerly=True)
    logs = learner.train_on_batch(*batch(), return_dict=True)
    one, two = (net(batch()[0], training=True)["logits"] for net in members())
    expected = tf.reduce_mean((one - two) ** 2)
    assert logs["member1_logits_mse"] == pytest.approx(float(expected), rel=1e-4)


@pytest.fixture(scope="module")
def steps():
    """`{how: [[loss, weights] on one replica, on two]}`, see `replicas_mutual.py`."""
    return answer_of("replicas_mutual.py")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["alone", "simultaneous", "sequential"])
def test_learners_two_replicas_match_single_replica(how, steps) -> None:
    (one_loss, one), (two_loss, two) = steps[how]
    assert two_loss == pytest.approx(one_loss, rel=1e-5)
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


# --- Sample weights and metrics


def test_mutual_learner_sample_weight_scales_terms_and_distillation() -> None:
    learner = mutual()
    images, labels = batch()
    weights = np.linspace(0, 2, len(images)).astype("float32")
    logs = learner.test_step((images, labels, tf.constant(weights)))
    out = {name: model(images, training=False) for name, model in learner.members.items()}
    each = losses.IdentityLoss(0.1, reduction=None)
    for name, other in (("member1", "member2"), ("member2", "member1")):
        expected = (weights * each(labels["identity"], out[name]["logits"]).numpy()).mean()
        assert float(logs[f"{name}_logits_identity"]) == pytest.approx(expected, rel=1e-5)
        alike = losses.LogitDistillationLoss(2.0, reduction=None)
        values = alike(out[other]["logits"], out[name]["logits"]).numpy()
        distilled = float(logs[f"{name}_logits_likeness"])
        assert distilled == pytest.approx((weights * values).mean(), rel=1e-4)


@pytest.mark.nightly
def test_learners_compiled_metrics_are_logged_per_member_and_saved(tmp_path) -> None:
    images, labels = batch()
    for learner, names in (
        (MutualLearner(members()), ("member1_", "member2_")),
        (Distiller(build(1), build(2)), ("",)),
    ):
        compiled(learner, metrics={"logits": "accuracy"})
        before = learner.test_on_batch(images, labels, return_dict=True)
        learner.save(tmp_path / "learner.keras")
        again = keras.saving.load_model(tmp_path / "learner.keras")
        after = again.test_on_batch(images, labels, return_dict=True)
        for name in names:
            assert 0 <= before[f"{name}logits_accuracy"] <= 1
            assert after[f"{name}logits_accuracy"] == before[f"{name}logits_accuracy"]
        with pytest.raises(InputError, match="`loss` must be a dict by output"):
            learner.compile(adam(), "mse")
