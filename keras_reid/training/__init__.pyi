from .build import Plan
from .callbacks import (
    Backup,
    CollapseMonitor,
    FiniteLoss,
    History,
    RetrievalEvaluation,
    averaged_weights,
)
from .fitting import fit
from .mutual import Distiller, MutualLearner
from .optimizers import RatedAdam
from .pairs import PairEvaluation
from .recipe import Recipe
from .recipes import RECIPES
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
    "MutualLearner",
    "PairEvaluation",
    "Plan",
    "RatedAdam",
    "Recipe",
    "Replicas",
    "RetrievalEvaluation",
    "Run",
    "WarmUp",
    "averaged_weights",
    "fit",
    "schedule",
]
