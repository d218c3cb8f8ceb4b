"""Graph of mutual learning: models by name, and edges from teachers to students."""

from collections.abc import Iterable, Mapping, Sequence

import keras

from keras_reid.errors import invalid
from keras_reid.models.reid_model import ReidModel, uncompiled

Edges = str | Iterable[tuple[str, str]]
Models = Sequence[keras.Model] | Mapping[str, keras.Model]


def members_of(model: keras.Model) -> dict[str, keras.Model]:
    """Return the trained models by name: members of a learner, or the model itself."""
    return getattr(model, "members", {"model": model})


def named(models: Models, kind: str) -> dict[str, keras.Model]:
    """Return the models by name.

    Args:
        models: models by name, or a list of models, which are named KIND1, KIND2, …
        kind: `"member"` or `"teacher"`; a single teacher of a list has no number.
    """
    if isinstance(models, Mapping):
        return dict(models)
    if len(models) == 1 and kind == "teacher":
        return {kind: models[0]}
    return {f"{kind}{number}": model for number, model in enumerate(models, start=1)}


def reid_models(models: Mapping[str, keras.Model]) -> dict[str, ReidModel]:
    """Return the models as `ReidModel`s of the same layers, whose `compile` accepts losses."""
    return {
        name: model if isinstance(model, ReidModel) else uncompiled(model)
        for name, model in models.items()
    }


def pairs(edges: Edges, members: list[str], teachers: list[str]) -> list[tuple[str, str]]:
    """Return the edges (teacher, student), see `keras_reid.training.MutualLearner`.

    Args:
        edges: `"all"`, `"ring"`, or pairs of names.
        members: names of the trained models.
        teachers: names of the frozen models.

    Raises:
        InputError: an unknown name, an edge to a frozen teacher or to itself, an edge that occurs
            twice, or no edge.
    """
    possible = [(a, b) for b in members for a in members + teachers if a != b]
    if not isinstance(edges, str):
        chosen = [(str(teacher), str(student)) for teacher, student in edges]
    elif edges == "ring":
        ring = [(members[i - 1], b) for i, b in enumerate(members) if len(members) > 1]
        chosen = ring + [edge for edge in possible if edge[0] in teachers]
    else:
        chosen = possible if edges == "all" else []
    if not chosen or not {*chosen} <= {*possible} or len({*chosen}) < len(chosen):
        rule = '"all", "ring" or different pairs (teacher, student), at least one'
        fix = f"Teachers are {members + teachers}, students {members}."
        raise invalid("edges", rule, chosen or edges, fix)
    return chosen
