from .callbacks import (
    Backup,
    CollapseMonitor,
    FiniteLoss,
    History,
    RetrievalEvaluation,
    averaged_weights,
)
from .distiller import Distiller
from .fitting import fit
from .learner import Learner
from .mutual import MutualLearner
from .objective import LossTerm, Objective, distill
from .output_metrics import OutputMetrics
from .rates import RatedAdam
from .recipes import RECIPES, Recipe
from .replicas import Replicas
from .runs import Run
from .schedules import WarmUp, schedule

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
    "Replicas",
    "RetrievalEvaluation",
    "Run",
    "WarmUp",
    "averaged_weights",
    "distill",
    "fit",
    "schedule",
]
