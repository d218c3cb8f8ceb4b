"""Learning rates per variable in `RatedAdam`, step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_reid import losses, models
from keras_reid.errors import InputError
from keras_reid.training import RatedAdam, build, recipes
from keras_reid.training.optimizers import SPARED, new_variables

SIZE = (32, 16)
LOSSES = {"logits": losses.IdentityLoss(), "features": losses.TripletHardLoss(normalize=True)}


def built() -> keras.Model:
    keras.utils.set_random_seed(0)
    return models.build("tiny", 4, SIZE, weights="none", pooling="gem")


def trained(optimizer, steps=1) -> list[np.ndarray]:
    """Return the change of each variable of the model of `built` after the same batches."""
    model = built()
    before = [v.numpy() for v in model.trainable_variables]
    model.compile(optimizer, LOSSES)
    for seed in range(steps):
        images = np.random.default_rng(seed).integers(0, 256, (12, *SIZE, 3), dtype=np.uint8)
        labels = {"identity": tf.constant(np.repeat(np.arange(4), 3), tf.int32)}
        model.train_on_batch(tf.constant(images), labels)
    return [v.numpy() - b for v, b in zip(model.trainable_variables, before, strict=True)]


def is_new() -> list[bool]:
    model = built()
    new = new_variables(model)
    return [v.path in new for v in model.trainable_variables]


def test_new_variables_returns_paths_outside_backbone():
    assert new_variables(built()) == ["pool/p", "embedding/gamma", "logits/kernel"]
    tracklets = models.build_tracklet("tiny", 4, SIZE, weights="none", temporal="attention")
    assert "logits/kernel" in new_variables(tracklets)
    assert not any("conv2d" in path for path in new_variables(tracklets))
    pixels = keras.Input((*SIZE, 3))
    with pytest.raises(InputError, match="a model with one backbone, got 0"):
        new_variables(keras.Model(pixels, keras.layers.Flatten()(pixels)))


@pytest.mark.parametrize(("options", "expected"), [({"factor": 5.0}, 0.9), ({"frozen": 1}, 1.0)])
def test_rated_adam_first_step_moves_new_and_other_variables(options, expected):
    new, other = (keras.Variable([1.0], name=name) for name in ("new", "other"))
    optimizer = RatedAdam(0.1, [new.path], **options)
    optimizer.apply([keras.ops.ones(1)] * 2, [new, other])
    assert float(new[0]) == pytest.approx(1 - 0.1 * optimizer.factor, rel=1e-4)
    assert float(other[0]) == pytest.approx(expected, rel=1e-4)


@pytest.mark.nightly
def test_rated_adam_without_factors_matches_adam():
    for ours, adam in zip(
        trained(RatedAdam(1e-3, new_variables(built())), 3),
        trained(keras.optimizers.Adam(1e-3), 3),
        strict=True,
    ):
        np.testing.assert_allclose(ours, adam, atol=1e-7)


@pytest.mark.nightly
def test_rated_adam_factor_scales_steps_of_new_variables():
    plain = trained(keras.optimizers.Adam(1e-3))
    moved = trained(RatedAdam(1e-3, new_variables(built()), factor=10.0))
    for ours, adam, new in zip(moved, plain, is_new(), strict=True):
        np.testing.assert_allclose(ours, adam * (10 if new else 1), rtol=1e-3, atol=1e-6)


@pytest.mark.nightly
def test_rated_adam_frozen_steps_keep_backbone_unchanged():
    optimizer = {"new": new_variables(built()), "frozen": 2, "decay": 0.1}
    for steps in (1, 2, 3):
        for moved, new in zip(trained(RatedAdam(1e-3, **optimizer), steps), is_new(), strict=True):
            assert moved.any() == (new or steps == 3)


@pytest.mark.nightly
def test_rated_adam_decay_matches_adamw():
    adamw = keras.optimizers.AdamW(1e-3, weight_decay=0.1)
    adamw.exclude_from_weight_decay(var_names=[*SPARED])
    plain, decayed = trained(keras.optimizers.Adam(1e-3)), trained(adamw)
    ours = trained(RatedAdam(1e-3, new_variables(built()), factor=10.0, decay=0.1))
    for moved, a, b, new in zip(ours, plain, decayed, is_new(), strict=True):
        np.testing.assert_allclose(moved, b * (10 if new else 1), rtol=1e-3, atol=1e-6)
        assert (a == b).all() or (a != b).any()


def test_rated_adam_serialization_keeps_config():
    optimizer = RatedAdam(1e-3, ["logits/kernel"], 10.0, 5, 0.01, use_ema=True)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert isinstance(again, RatedAdam)
    assert again.get_config() == optimizer.get_config()


def test_build_optimizer_new_rate_and_freeze_uses_rated_adam():
    model = built()
    recipe = recipes.get("tiny")
    assert type(build.build_optimizer(recipe, 10, model)) is keras.optimizers.Adam
    changed = recipe.replace(
        head_lr_multiplier=10.0, freeze_epochs=0.5, weight_decay=0.01, pretrain_epochs=1
    )
    optimizer = build.build_optimizer(changed, 10, model)
    assert (optimizer.factor, optimizer.frozen, optimizer.decay) == (10, 5, 0.01)
    assert optimizer.new == new_variables(model)
    assert [phase.freeze_epochs for phase, _ in changed.phases] == [0.5, 0]
    for bad, message in (
        ({"head_lr_multiplier": 0.0}, "`head_lr_multiplier` must be positive, got 0.0"),
        ({"head_lr_multiplier": float("nan")}, "`head_lr_multiplier` must be positive, got nan"),
        ({"freeze_epochs": -1.0}, "`freeze_epochs` must be at least 0, got -1.0"),
    ):
        with pytest.raises(InputError, match=message):
            recipe.replace(**bad)


@pytest.mark.parametrize("bad", [{"factor": 0.0}, {"frozen": -1}, {"decay": -0.1}])
def test_rated_adam_invalid_arguments_raises(bad):
    with pytest.raises(InputError, match=r"must be (positive|at least 0), got"):
        RatedAdam(1e-3, **bad)
    with pytest.raises(InputError, match="nothing"):
        trained(RatedAdam(1e-3, ["nothing"]))
