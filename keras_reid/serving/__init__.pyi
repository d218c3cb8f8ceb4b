from .checking import ParityReport, ScoreReport, parity, sample, scores
from .exporting import FORMATS, QUANTIZATIONS, TOLERANCES, export
from .ranker import checked_reranker, export_ranker

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
