"""Retrieval scores: embeddings or distances in, values that carry their protocol out."""

from keras_reid.evaluation.features import matrix
from keras_reid.evaluation.ranking import rank
from keras_reid.evaluation.result import RankingProtocol, RankingResult

__all__ = ["RankingProtocol", "RankingResult", "matrix", "rank"]
