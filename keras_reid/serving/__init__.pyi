from .checking import ParityReport, ScoreReport, parity, sample, scores
from .contract import Contract, fingerprint
from .embedders import ExportedEmbedder, SavedEmbedder, load
from .exporting import export
from .ranker import checked_reranker, export_ranker
from .registry import FORMATS, QUANTIZATIONS, TOLERANCES
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
