"""What a model is trained for: named, weighted losses over named outputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_reid.errors import InputError
from keras_reid.losses import DistillationLoss, MetricLoss


@dataclass(frozen=True)
class LossTerm:
    """`weight · loss(labels[label], outputs[output])`.

    Attributes:
        name: what the term is called in logs.
        loss: any `keras.losses.Loss`.
        output: the key of the model's output that the loss looks at, or several keys: the loss then
            gets the tuple of these outputs.
        label: the key of the labels that it compares with.
        weight: factor in the sum.
    """

    name: str
    loss: keras.losses.Loss
    output: str | tuple[str, ...]
    label: str = "identity"
    weight: float = 1.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """The keys of all outputs that it looks at."""
        return (self.output,) if isinstance(self.output, str) else self.output

    def __call__(
        self, labels: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any = None
    ) -> Any:
        """The loss without the term's weight, a scalar; `sample_weight` (b,) weighs its images."""
        return self.measure(labels, outputs, sample_weight)[0]

    def measure(
        self, labels: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any = None
    ) -> tuple[Any, dict[str, Any]]:
        """What a call returns, and `NAME_…` for the statistics of `MetricLoss.measure`."""
        read = self._read(labels, outputs)
        if not isinstance(self.loss, MetricLoss):
            return self.loss(*read, sample_weight=sample_weight), {}
        value, statistics = self.loss.measure(*read, sample_weight=sample_weight)
        return value, {f"{self.name}_{what}": seen for what, seen in statistics.items()}

    def _read(self, labels: Mapping[str, Any], outputs: Mapping[str, Any]) -> tuple[Any, Any]:
        for kind, keys, given in (
            ("an output", self.outputs, outputs),
            ("a label", (self.label,), labels),
        ):
            for key in keys:
                if key not in given:
                    raise InputError(
                        f"the term {self.name!r} needs {kind} named {key!r}: received "
                        f"{sorted(given)}"
                    )
        read = tuple(outputs[key] for key in self.outputs)
        return labels[self.label], read[0] if isinstance(self.output, str) else read


def distill(
    loss: DistillationLoss, weight: float = 1.0, output: str | None = None, name: str | None = None
) -> LossTerm:
    """`weight · loss(teacher[output], student[output])`, a term of a distillation.

    Args:
        loss: what is learned from a teacher.
        weight: factor in the sum.
        output: the key of both models' outputs; None: the one that the loss is made for.
        name: what the term is called in logs; None: logits, distances or ranks.
    """
    output = output or loss.output
    return LossTerm(name or loss.label, loss, output, output, weight)


@keras.saving.register_keras_serializable(package="keras_reid")
class Objective:
    """`Σ weight · term`, with a log entry for each term.

    Args:
        terms: at least one `LossTerm`; their names are all different.
    """

    def __init__(self, *terms: LossTerm) -> None:
        names = [term.name for term in terms]
        if not terms or len(set(names)) < len(names):
            raise InputError(f"an objective has terms of different names: received {names}")
        self.terms = terms

    def __call__(
        self, labels: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any = None
    ) -> dict[str, Any]:
        """The value of each term by name, without its weight; see `LossTerm`."""
        return self.measure(labels, outputs, sample_weight)[0]

    def measure(
        self, labels: Mapping[str, Any], outputs: Mapping[str, Any], sample_weight: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a call returns, and what the metric losses saw; see `LossTerm.measure`."""
        values: dict[str, Any] = {}
        statistics: dict[str, Any] = {}
        for term in self.terms:
            values[term.name], seen = term.measure(labels, outputs, sample_weight)
            statistics |= seen
        return values, statistics

    def total(self, values: Mapping[str, Any]) -> Any:
        """The weighted sum of what a call returned."""
        return sum(term.weight * values[term.name] for term in self.terms)

    def get_config(self) -> dict[str, Any]:
        """The terms, as Keras saves them."""
        return {
            "terms": [
                {**vars(term), "loss": keras.saving.serialize_keras_object(term.loss)}
                for term in self.terms
            ]
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Objective":
        """The objective of `get_config`."""
        return cls(*(_restored(**term) for term in config["terms"]))


def joint(distillation: Objective | DistillationLoss) -> Objective:
    """What a student learns of its teachers: the terms of `distill`, or one loss alone."""
    if isinstance(distillation, Objective):
        return distillation
    return Objective(distill(distillation))


def _restored(loss: Any, output: Any, **rest: Any) -> LossTerm:
    """A term of its configuration, in which a file has made a list of a tuple."""
    output = tuple(output) if isinstance(output, list) else output
    return LossTerm(loss=keras.saving.deserialize_keras_object(loss), output=output, **rest)
