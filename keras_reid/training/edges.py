"""Graph of mutual learning: models by name, and edges from teachers to students."""

from collections.abc import Iterable, Mapping, Sequence

import keras

from keras_reid.errors import InputError, invalid

Edges = str | Iterable[tuple[str, str]]
Models = Sequence[keras.Model] | Mapping[str, keras.Model]


def named(models: Models, kind: str, always: bool = False) -> dict[str, keras.Model]:
    """Return models by name: their own, or KIND1, KIND2, …, or KIND for one unless `always`."""
    if isinstance(models, Mapping):
        by_name = dict(models)
    elif len(models) == 1 and not always:
        by_name = {kind: models[0]}
    else:
        by_name = {f"{kind}{number}": model for number, model in enumerate(models, start=1)}
    if len({*map(id, by_name.values())}) < len(by_name):
        fix = "Build or clone another."
        raise invalid(f"{kind}s", "different models", [*by_name], fix)
    return by_name


def pairs(edges: Edges, members: list[str], teachers: list[str]) -> list[tuple[str, str]]:
    """Return the edges (teacher, student), see `keras_reid.training.MutualLearner`.

    Raises:
        InputError: an unknown or ambiguous name, an edge to a frozen teacher or to itself, an edge
            that occurs twice, or no edge.
    """
    if twice := sorted({*members} & {*teachers}):
        raise InputError(f"Members and teachers must have different names, both have {twice}.")
    frozen = [(teacher, member) for member in members for teacher in teachers]
    if not isinstance(edges, str):
        chosen = [(str(teacher), str(student)) for teacher, student in edges]
    elif edges == "all":
        chosen = [(a, b) for b in members for a in members if a != b] + frozen
    elif edges == "ring":
        chosen = [(members[i - 1], b) for i, b in enumerate(members) if len(members) > 1] + frozen
    else:
        raise invalid("edges", '"all", "ring" or pairs of names', edges)
    possible = {(a, b) for a in members + teachers for b in members if a != b}
    if not chosen or not {*chosen} <= possible or len({*chosen}) < len(chosen):
        rule = "different pairs (teacher, student), at least one"
        fix = f"Teachers are {members + teachers}, students {members}."
        raise invalid("edges", rule, chosen, fix)
    return chosen
