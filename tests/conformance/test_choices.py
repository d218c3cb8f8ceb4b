"""Words that are checked before Keras is imported are those of what they stand for."""

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
def test_words_are_those_of_what_they_stand_for(words, meant):
    assert words == tuple(meant)


def test_all_public_names_are_there():
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
