"""Scores of `train.py`: of the validation images, of each of several sources, and of tests."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from keras_reid import data, models, training
from keras_reid.cli.terminal import say
from keras_reid.cli.train_options import TrainOptions
from keras_reid.evaluation import Protocol
from keras_reid.training.recipe import Recipe

if TYPE_CHECKING:
    import keras


@dataclass
class Scores:
    """Scores of the models of a training run.

    Attributes:
        evaluation: callback of the validation images; None if there are none.
        tests: the same of data sets that are scored only after training, by name.
    """

    evaluation: Any = None
    tests: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        options: TrainOptions,
        recipe: Recipe,
        dataset: data.ReidDataset,
        tests: Mapping[str, data.ReidDataset],
    ) -> "Scores":
        """Return the scores of the query and gallery images of a data set, and of tests."""
        own = None
        if dataset.query is not None:
            own = _evaluation(options, recipe, dataset)
        else:
            scored = (
                f"scored only on {', '.join(tests)} after it, and not" if tests else "not scored or"
            )
            say(
                f"no query and gallery images: the model is trained, but {scored} calibrated. "
                "--holdout=0.2 keeps a fifth of the identities for scores"
            )
        made = {}
        for name, test in tests.items():
            cameras = all(images.camera is not None for images in test.parts().values())
            protocol = None if cameras else "no-camera"
            made[name] = _evaluation(options, recipe, replace(test, name=name), protocol)
        return cls(own, made)

    def before(self, model: "keras.Model") -> dict[str, Any]:
        """Return the scores of the untrained model, for `metrics.json`."""
        if not self.evaluation:
            return {}
        result = self.evaluation.score(model)
        say(f"before training: {headline(self.evaluation.summary(result))}")
        return {"before": result.to_dict()}

    def after(self, members: "Sequence[keras.Model]") -> tuple[dict[str, Any], dict[str, float]]:
        """Print all scores, and return them for `metrics.json` and for experiment trackers.

        Sources and tests are scored with the first member.
        """
        values, final = _scored(self.evaluation, members) if self.evaluation else ({}, {})
        if final:
            say(f"after training:  {headline(final)}")
        sources = self.evaluation.by_source() if self.evaluation else {}
        tests = {name: test.score(members[0]) for name, test in self.tests.items()}
        rows = {name: self.evaluation.summary(result) for name, result in sources.items()}
        rows |= {name: self.tests[name].summary(result) for name, result in tests.items()}
        if rows:
            say(score_table(rows, tests))
        for group, results in (("sources", sources), ("tests", tests)):
            if results:
                values[group] = {name: result.to_dict() for name, result in results.items()}
        for name, scores in rows.items():
            place = re.sub(r"[^\w./-]", "_", name)  # other characters are errors in MLflow
            final |= {f"{place}/{score}": value for score, value in scores.items()}
        return values, final


def _evaluation(
    options: TrainOptions, recipe: Recipe, dataset: data.ReidDataset, protocol: str | None = None
) -> Any:
    """Return the callback that scores a model on the query and gallery images of a data set.

    The protocol is that of the options by default.
    """
    query, gallery = dataset.query, dataset.gallery
    assert query is not None
    assert gallery is not None
    arguments = {
        "batch_size": options.embed_batch_size,
        "every": options.eval_every or recipe.epochs,
        "protocol": Protocol(protocol or options.protocol_of(query), dataset=dataset.name),
    }
    make, arguments = recipe.evaluation((training.RetrievalEvaluation, arguments))
    return make(query, gallery, **arguments)


def _scored(
    evaluation: Any, members: "Sequence[keras.Model]"
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the scores and calibrations for `metrics.json`, and the main scores.

    Several members are scored one by one and as an ensemble, by the values of --member.
    """
    named = {str(number): model for number, model in enumerate(members, start=1)}
    if len(members) > 1:
        named["ensemble"] = models.ensemble(list(members))
    results, calibrations = {}, {}
    # The first member last: TensorBoard shows its embeddings.
    for name, model in reversed(named.items()):
        results[name] = evaluation.score(model)
        if (calibration := evaluation.calibration()) is not None:
            calibrations[name] = calibration.to_dict()
    say(f"\n{results['1']}\n")
    summary = evaluation.summary(results["1"])
    scores = {"after": results["1"].to_dict(), "calibration": calibrations}
    if len(members) == 1:
        return scores, summary
    for name in named:
        say(f"--member={name}: {headline(evaluation.summary(results[name]))}")
    return {**scores, "members": {name: results[name].to_dict() for name in named}}, summary


def headline(scores: Mapping[str, float]) -> str:
    """Return scores in percent on one line."""
    return ", ".join(f"{name} {100 * score:.1f} %" for name, score in scores.items())


def score_table(rows: Mapping[str, Mapping[str, float]], untrained: Collection[str]) -> str:
    """Return a table of scores in percent, with a row for each data set.

    Args:
        rows: scores by name of each data set.
        untrained: data sets that the model is not trained on.
    """
    width = max(map(len, ("data set", *rows)))
    names = [*next(iter(rows.values()))]
    lines = [f"{'data set':<{width}}  trained on" + "".join(f"{name:>10}" for name in names)]
    for row, scores in rows.items():
        trained = "no" if row in untrained else "yes"
        values = (f"{100 * scores[name]:8.1f} %" for name in names)
        lines.append(f"{row:<{width}}  {trained:<10}" + "".join(values))
    return "\n".join(lines) + "\n"
