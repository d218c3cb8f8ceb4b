"""Embedders as files that run elsewhere: SavedModel, ONNX, LiteRT, OpenVINO; their checks."""

from keras_reid.serving.checking import ParityReport, ScoreReport, parity, sample, scores
from keras_reid.serving.contract import Contract, fingerprint
from keras_reid.serving.embedders import ExportedEmbedder, SavedEmbedder, load
from keras_reid.serving.exporting import FORMATS, QUANTIZATIONS, TOLERANCES, export
from keras_reid.serving.ranker import checked_reranker, export_ranker
from keras_reid.serving.saved_model import INPUTS

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
