from .checking import ParityReport, ScoreReport, parity, sample, scores
from .contract import Contract, fingerprint
from .embedders import ExportedEmbedder, SavedEmbedder, load
from .exporting import FORMATS, QUANTIZATIONS, TOLERANCES, export
from .ranker import checked_reranker, export_ranker
from .saved_model import INPUTS

__all__ = [
    "FORMATS",
    "INPUTS",
    "QUANTIZATIONS",
    "TOLERANCES",
    "Contract",
    "ExportedEmbedder",
    "ParityReport",
    "SavedEmbedder",
    "ScoreReport",
    "checked_reranker",
    "export",
    "export_ranker",
    "fingerprint",
    "load",
    "parity",
    "sample",
    "scores",
]
