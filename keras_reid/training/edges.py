"""Who learns from whom: models by name, and edges from teachers to students."""

from collections.abc import Iterable, Mapping, Sequence

import keras

from keras_reid.errors import InputError

Edges = str | Iterable[tuple[str, str]]
Models = Sequence[keras.Model] | Mapping[str, keras.Model]


def named(models: Models, kind: str, always: bool = False) -> dict[str, keras.Model]:
    """Models by name: their own, or KIND1, KIND2, …, or KIND for a single one unless `always`."""
    if isinstance(models, Mapping):
        named = dict(models)
    elif len(models) == 1 and not always:
        named = {kind: models[0]}
    else:
        named = {f"{kind}{number}": model for number, model in enumerate(models, start=1)}
    if len({*map(id, named.values())}) < len(named):
        raise InputError(
            f"each {kind} is a model of its own: received one model twice; build or clone another"
        )
    return named


def pairs(edges: Edges, members: list[str], teachers: list[str]) -> list[tuple[str, str]]:
    """The edges (teacher, student), see `keras_reid.training.MutualLearner`.

    Raises:
        InputError: a name that is unknown or means two, an edge to a frozen teacher or to itself,
            an edge that is there twice, or no edge.
    """
    if twice := {*members} & {*teachers}:
        raise InputError(f"a name means one model: received {sorted(twice)} for two; rename one")
    frozen = [(teacher, member) for member in members for teacher in teachers]
    if not isinstance(edges, str):
        chosen = [(str(teacher), str(student)) for teacher, student in edges]
    elif edges == "all":
        chosen = [(a, b) for b in members for a in members if a != b] + frozen
    elif edges == "ring":
        chosen = [(members[i - 1], b) for i, b in enumerate(members) if len(members) > 1] + frozen
    else:
        raise InputError(f"edges are all, ring, or pairs of names: received {edges!r}")
    wrong = [(a, b) for a, b in chosen if a not in members + teachers or b not in members or a == b]
    if wrong or not chosen or len({*chosen}) < len(chosen):
        raise InputError(
            f"an edge leads from one of {members + teachers} to another of {members}, once, and "
            f"there is at least one: received {wrong or chosen}"
        )
    return chosen
