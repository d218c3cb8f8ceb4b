from .checking import ParityReport, ScoreReport, parity, sample, scores
from .exporting import export
from .ranker import checked_reranker, export_ranker
from .registry import FORMATS, QUANTIZATIONS, TOLERANCES

__all__ = [
    "FORMATS",
    "QUANTIZATIONS",
    "TOLERANCES",
    "ParityReport",
    "ScoreReport",
    "checked_reranker",
    "export",
    "export_ranker",
    "parity",
    "sample",
    "scores",
]
