"""Trackers of experiments: what a run was started with, its losses by epoch, and its scores."""

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
    """Refuses a tracker that is not installed.

    Raises:
        InputError: what to install.
    """
    if name != "none" and find_spec(name) is None:
        raise InputError(f"the tracker {name} is not here: run pip install {name}")


@contextmanager
def tracked(name: str, run: Run, settings: Mapping[str, Any]) -> Iterator[Tracker]:
    """Callbacks for the training, and what is called with its scores.

    Where it is written is said as these trackers want it: by `MLFLOW_TRACKING_URI`, and by
    `WANDB_MODE`, `WANDB_DIR` and `WANDB_API_KEY`.

    Args:
        name: none, mlflow or wandb.
        run: by whose folder it is called.
        settings: what it was started with.
    """
    with ExitStack() as stack:
        try:
            tracker = TRACKERS[name](run, settings, stack)
        except Exception as error:
            raise InputError(
                f"the tracker {name} could not begin ({first_line(error)}); mend that, or go "
                "without",
                "tracker",
            ) from error
        yield tracker


def _none(run: Run, settings: Mapping[str, Any], stack: ExitStack) -> Tracker:
    return [], lambda scores: None


def _mlflow(run: Run, settings: Mapping[str, Any], stack: ExitStack) -> Tracker:
    import mlflow
    from mlflow.keras import MlflowCallback

    class Epochs(MlflowCallback):
        """The losses; what the optimizer is follows from the settings."""

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


TRACKERS = {"none": _none, "mlflow": _mlflow, "wandb": _wandb}  # names are those of packages
