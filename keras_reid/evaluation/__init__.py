"""Scores and groups: embeddings or distances in, values that carry their protocol out."""

from keras_reid.evaluation.clustering import ClusterScores, cluster, cluster_scores
from keras_reid.evaluation.features import matrix
from keras_reid.evaluation.files import StoredFeatures, load_features, save_features
from keras_reid.evaluation.open_set import OpenSetResult, open_set
from keras_reid.evaluation.ranking import rank
from keras_reid.evaluation.result import QueryScores, RankingProtocol, RankingResult
from keras_reid.evaluation.threshold import Threshold
from keras_reid.evaluation.verification import VerificationResult, pairs, verify

__all__ = [
    "ClusterScores",
    "OpenSetResult",
    "QueryScores",
    "RankingProtocol",
    "RankingResult",
    "StoredFeatures",
    "Threshold",
    "VerificationResult",
    "cluster",
    "cluster_scores",
    "load_features",
    "matrix",
    "open_set",
    "pairs",
    "rank",
    "save_features",
    "verify",
]
