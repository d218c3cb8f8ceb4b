"""Experiment trackers: settings, losses by epoch and scores of a run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from keras_reid.errors import InputError, first_line
from keras_reid.training.runs import Run

if TYPE_CHECKING:
    import keras

PROJECT = "keras_reid"  # the experiment of MLflow, the project of Weights & Biases
Tracker = tuple["list[keras.callbacks.Callback]", Callable[[Mapping[str, float]], None]]


def check(name: str) -> None:
    """Raise `InputError` if the tracker `name` is not installed."""
    if name != "none" and find_spec(name) is None:
        raise InputError(f"{name} is not installed. Run pip install {name}.", "tracker")


@contextmanager
def tracked(name: str, run: Run, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """Yield the callbacks of a training run, and a function that logs its scores.

    The destination is set by `MLFLOW_TRACKING_URI`, and by `WANDB_MODE`, `WANDB_DIR` and
    `WANDB_API_KEY`.

    Args:
        name: none, mlflow or wandb.
        run: run, which is logged with the name of its folder.
        settings: settings of the run.
    """
    with ExitStack() as stack:
        try:
            tracker = TRACKERS[name](run, settings, stack)
        except Exception as error:
            raise InputError(f"{name} failed: {first_line(error)}.", "tracker") from error
        yield tracker


def _none(run: Run, settings: Mapping[str, Any], stack: ExitStack) -> Tracker:
    return [], lambda scores: None


def _mlflow(run: Run, settings: Mapping[str, Any], stack: ExitStack) -> Tracker:
    import mlflow
    from mlflow.keras import MlflowCallback

    class Epochs(MlflowCallback):
        """Callback that logs only the losses; the settings contain the optimizer."""

        def on_train_begin(self, logs: Any = None) -> None:
            pass

    mlflow.set_experiment(PROJECT)
    stack.enter_context(mlflow.start_run(run_name=run.directory.name))
    mlflow.log_params(dict(settings))

    def scored(scores: Mapping[str, float]) -> None:
        mlflow.log_metrics(dict(scores))
        mlflow.log_artifact(str(run.metrics_file))

    return [Epochs(log_every_epoch=True)], scored


def _wandb(run: Run, settings: Mapping[str, Any], stack: ExitStack) -> Tracker:
    import wandb
    from wandb.integration.keras import WandbMetricsLogger

    tracked = stack.enter_context(
        wandb.init(project=PROJECT, name=run.directory.name, config=dict(settings))
    )

    def scored(scores: Mapping[str, float]) -> None:
        tracked.summary.update(dict(scores))

    return [WandbMetricsLogger()], scored


TRACKERS = {"none": _none, "mlflow": _mlflow, "wandb": _wandb}  # by the names of packages
