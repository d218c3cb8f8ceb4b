"""Choices of the command-line flags match the registries, and all public names exist."""

import pytest

from keras_reid import choices, layers, losses, reranking, scale, serving
from keras_reid.layers.temporal import TEMPORAL
from keras_reid.losses.identity import MARGINS
from keras_reid.serving.exporting import TOLERANCES


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (choices.METRIC_LOSSES, losses.METRIC_LOSSES),
        (choices.SOFTMAX_MARGINS, MARGINS),
        (choices.DISTILLATIONS, losses.DISTILLATION_LOSSES),
        (choices.TEMPORAL_POOLINGS, TEMPORAL),
        (choices.RERANKERS, reranking.RERANKERS),
        (choices.IN_GRAPH, reranking.IN_GRAPH),
        (choices.QUANTIZATIONS, TOLERANCES),
        (choices.FORMATS, serving.FORMATS),
        (choices.ENGINES, scale.ENGINES),
    ],
)
def test_choices_match_registries(words, meant):
    assert words == tuple(meant)


def test_packages_export_all_public_names():
    """A package imports its modules when it is asked for them, so each name is asked for once."""
    from keras_reid import data, models, tracking, training, visualize

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
