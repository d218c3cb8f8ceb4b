"""Scores and groups: embeddings or distances in, values that carry their protocol out."""

from keras_reid.evaluation.clustering import ClusterScores, cluster, cluster_scores
from keras_reid.evaluation.features import matrix
from keras_reid.evaluation.files import StoredFeatures, load_features, save_features
from keras_reid.evaluation.ranking import rank
from keras_reid.evaluation.result import QueryScores, RankingProtocol, RankingResult

__all__ = [
    "ClusterScores",
    "QueryScores",
    "RankingProtocol",
    "RankingResult",
    "StoredFeatures",
    "cluster",
    "cluster_scores",
    "load_features",
    "matrix",
    "rank",
    "save_features",
]
