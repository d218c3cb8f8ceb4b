"""Feature collapse: the default objective spreads features, unnormalized triplets do not."""

import keras
import numpy as np
import pytest

from keras_reid import data
from keras_reid.training import Plan, build, recipes

EPOCHS = 3


def cone(features: np.ndarray) -> float:
    """`|mean of x/|x||²`: 1 where all features point one way, 0 where they point everywhere."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return float((unit.mean(0) ** 2).sum())


def trained(drawn: data.ReidDataset, **change: object) -> tuple[float, float]:
    """The cone of the features of unseen pedestrians before and after a training."""
    keras.utils.set_random_seed(0)
    recipe = recipes.get("bot").replace(height=64, width=32, epochs=EPOCHS, **change)
    plan = Plan.of(recipe, drawn.train)
    (model,) = plan.members()
    learner = build.build_learner([model], recipe, plan)
    features = keras.Model(model.input, model.output["features"])
    test = data.image_batches(drawn.query, 64, recipe.image_size)

    def measured() -> float:
        return cone(np.concatenate([features(x, training=False).numpy() for x in test]))

    before = measured()
    batches = data.pk_batches(drawn.train, image_size=recipe.image_size, augment=recipe.augment)
    learner.fit(batches, epochs=EPOCHS, steps_per_epoch=plan.steps, shuffle=False, verbose=0)
    return before, measured()


@pytest.mark.nightly
@pytest.mark.real  # for the pretrained weights alone: the pedestrians are drawn
def test_default_objective_does_not_collapse_features_into_cone(real_data, tmp_path) -> None:
    sizes = {"train_identities": 40, "test_identities": 20, "cameras": 3, "images_per_camera": 4}
    data.synthetic.generate(tmp_path / "drawn", **sizes, size=(64, 32))
    drawn = data.load("synthetic", str(tmp_path / "drawn"))
    backbone = str(real_data / "weights" / "mobilenetv2_imagenet.keras")
    before, after = trained(drawn, backbone=backbone)
    assert after < before + 0.05
    before, after = trained(drawn, backbone=backbone, normalize=False)
    assert after > before + 0.1  # that this can be seen at all
