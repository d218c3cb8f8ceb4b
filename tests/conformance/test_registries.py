"""Every name of a registry resolves, and all public names exist."""

from pathlib import Path

import pytest

from keras_reid import layers, losses, models, reranking, scale
from keras_reid.layers.registry import STRIPE_POOLINGS
from keras_reid.registry import Registry


@pytest.mark.parametrize(
    "registry",
    [
        *(losses.METRIC_LOSSES, losses.DISTILLATION_LOSSES, losses.MARGINS),
        *(layers.POOLINGS, layers.TEMPORAL, STRIPE_POOLINGS),
        *(models.BACKBONES, models.NECKS, models.CLASSIFIERS),
        *(reranking.RERANKERS, reranking.IN_GRAPH, scale.ENGINES),
    ],
    ids=lambda registry: next(iter(registry)),
)
def test_registry_all_names_resolve(registry):
    assert isinstance(registry, Registry)
    assert len({id(value) for value in registry.values()}) == len(registry)
    assert "magic" not in registry


def test_metric_losses_are_all_losses_of_one_output_and_documented():
    public = [getattr(losses, name) for name in losses.__all__ if name.endswith("Loss")]
    metric = [cls for cls in public if issubclass(cls, losses.MetricLoss) and not cls.outputs]
    assert {*losses.METRIC_LOSSES.values()} == {*metric} - {losses.MetricLoss}
    page = (Path(__file__).parents[2] / "docs/losses.md").read_text(encoding="utf-8")
    for cls in losses.METRIC_LOSSES.values():
        assert f"| `{cls.__name__}` |" in page


def test_distillation_losses_state_output_of_model():
    outputs = {name: loss.output for name, loss in losses.DISTILLATION_LOSSES.items()}
    assert outputs == {
        "logits": "logits",
        "cosine": "embedding",
        "distances": "features",
        "ranks": "embedding",
    }


def test_packages_export_all_public_names():
    """A package imports its modules on use, so each name is used once."""
    from keras_reid import data, serving, tracking, training, visualize

    packages = (
        *(data, layers, losses, models, reranking),
        *(scale, serving, tracking, training, visualize),
    )
    for package in packages:
        assert len(package.__all__) > 3
        for name in package.__all__:
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        data.nothing  # noqa: B018
