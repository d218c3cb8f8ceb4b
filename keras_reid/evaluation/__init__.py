"""Scores and groups: embeddings or distances in, values that carry their protocol out."""

from keras_reid.evaluation.attribute_scoring import (
    AttributeScores,
    PreFilter,
    attribute_scores,
    predicted_attributes,
    prefilter,
)
from keras_reid.evaluation.calibration import (
    FEWEST_PERSONS,
    MatchCalibration,
    fit_calibration,
    fit_pair_calibration,
)
from keras_reid.evaluation.clusters import (
    Clustering,
    ClusterScores,
    cluster,
    cluster_scores,
    clustering,
)
from keras_reid.evaluation.comparison import compare, matrix, matrix_rows
from keras_reid.evaluation.features_io import (
    StoredFeatures,
    holds_both_sides,
    load_features,
    save_features,
    save_matlab,
)
from keras_reid.evaluation.identification import OpenSetResult, open_set
from keras_reid.evaluation.labels import Labels
from keras_reid.evaluation.lists import RankedList, ranked_lists
from keras_reid.evaluation.protocols import Protocol
from keras_reid.evaluation.ranking import rank
from keras_reid.evaluation.result import QueryScores, RankingProtocol, RankingResult
from keras_reid.evaluation.sets import SET_DISTANCES, reranked_set_distances, set_distances
from keras_reid.evaluation.threshold import Threshold
from keras_reid.evaluation.verification import VerificationResult, pairs, verify
from keras_reid.nearest.arrays import Rows

__all__ = [
    "FEWEST_PERSONS",
    "SET_DISTANCES",
    "AttributeScores",
    "ClusterScores",
    "Clustering",
    "Labels",
    "MatchCalibration",
    "OpenSetResult",
    "PreFilter",
    "Protocol",
    "QueryScores",
    "RankedList",
    "RankingProtocol",
    "RankingResult",
    "Rows",
    "StoredFeatures",
    "Threshold",
    "VerificationResult",
    "attribute_scores",
    "cluster",
    "cluster_scores",
    "clustering",
    "compare",
    "fit_calibration",
    "fit_pair_calibration",
    "holds_both_sides",
    "load_features",
    "matrix",
    "matrix_rows",
    "open_set",
    "pairs",
    "predicted_attributes",
    "prefilter",
    "rank",
    "ranked_lists",
    "reranked_set_distances",
    "save_features",
    "save_matlab",
    "set_distances",
    "verify",
]
