"""Keras metrics over the named outputs of a model, beside the objective it is trained for."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_reid.errors import InputError
from keras_reid.training.objective import Objective

Given = Mapping[str, Any] | None


class OutputMetrics:
    """`metrics={"logits": "accuracy"}` of `compile`: what to measure of which output.

    An output is compared with the label of the term that reads it, else with the identities. The
    logs have `OUTPUT_METRIC` for each.

    Args:
        given: for each output a metric, or a list of them: `keras.metrics.Metric`, a function
            `(y_true, y_pred)`, or a name that Keras knows; "accuracy" is that of class indices.
        objective: whose terms say which label belongs to an output.

    Raises:
        InputError: metrics that do not say of which output they are, or that Keras does not know.
    """

    def __init__(self, given: Given, objective: Objective) -> None:
        if given is not None and not isinstance(given, Mapping):
            raise InputError(
                "metrics are of outputs by name, since the model has several: received "
                f'{given!r}; give metrics={{"logits": "accuracy"}}, say'
            )
        self.by_output = {
            output: [_metric(one) for one in _listed(metrics)]
            for output, metrics in (given or {}).items()
        }
        self._label = {output: term.label for term in objective.terms for output in term.outputs}

    @property
    def all(self) -> list[keras.metrics.Metric]:
        """The metrics of all outputs."""
        return [metric for metrics in self.by_output.values() for metric in metrics]

    def again(self, objective: Objective) -> "OutputMetrics":
        """The same with a state of its own, for another model."""
        copies = {
            output: [type(metric).from_config(metric.get_config()) for metric in metrics]
            for output, metrics in self.by_output.items()
        }
        return OutputMetrics(copies, objective)

    def update(self, labels: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Adds a batch and returns the results by their names in the logs.

        Raises:
            InputError: an output or a label that is not there.
        """
        results = {}
        for output, metrics in self.by_output.items():
            label = self._label.get(output, "identity")
            for key, given in ((output, outputs), (label, labels)):
                if key not in given:
                    raise InputError(
                        f"a metric of {output!r} compares it with the label {label!r}: received "
                        f"the outputs {sorted(outputs)} and the labels {sorted(labels)}"
                    )
            for metric in metrics:
                metric.update_state(labels[label], outputs[output])
                results[f"{output}_{metric.name}"] = metric.result()
        return results


def refuse_losses(options: Mapping[str, Any]) -> None:
    """The objective is what a learner is trained for."""
    given = [name for name in ("loss", "loss_weights") if options.get(name) is not None]
    if given:
        raise InputError(
            f"a learner is trained for its objective: received {' and '.join(given)}; put a "
            "LossTerm with the loss and its weight into the Objective"
        )
    if options.get("weighted_metrics") is not None:
        raise InputError(
            "metrics of a learner are not weighted: received weighted_metrics; give them as metrics"
        )


def _listed(metrics: Any) -> Sequence[Any]:
    return metrics if isinstance(metrics, (list, tuple)) else [metrics]


def _metric(given: Any) -> keras.metrics.Metric:
    if given in ("accuracy", "acc"):
        return keras.metrics.SparseCategoricalAccuracy(name=given)
    try:
        metric = keras.metrics.get(given)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"a metric is a keras.metrics.Metric, a function or a name that Keras knows: received "
            f"{given!r}"
        ) from error
    if isinstance(metric, keras.metrics.Metric):
        return metric
    return keras.metrics.MeanMetricWrapper(metric, name=getattr(metric, "__name__", "metric"))
