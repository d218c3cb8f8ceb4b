"""Training: objectives, the learner, recipes and run folders."""

from keras_reid.training.callbacks import (
    Backup,
    CollapseMonitor,
    FiniteLoss,
    History,
    RetrievalEvaluation,
    averaged_weights,
)
from keras_reid.training.distiller import Distiller
from keras_reid.training.fitting import fit
from keras_reid.training.learner import Learner
from keras_reid.training.mutual import MutualLearner
from keras_reid.training.objective import LossTerm, Objective, distill
from keras_reid.training.output_metrics import OutputMetrics
from keras_reid.training.rates import RatedAdam
from keras_reid.training.recipes import RECIPES, Recipe
from keras_reid.training.runs import Run
from keras_reid.training.schedules import WarmUp, schedule

__all__ = [
    "RECIPES",
    "Backup",
    "CollapseMonitor",
    "Distiller",
    "FiniteLoss",
    "History",
    "Learner",
    "LossTerm",
    "MutualLearner",
    "Objective",
    "OutputMetrics",
    "RatedAdam",
    "Recipe",
    "RetrievalEvaluation",
    "Run",
    "WarmUp",
    "averaged_weights",
    "distill",
    "fit",
    "schedule",
]
