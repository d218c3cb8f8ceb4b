"""Scores of a pair verifier on pairs of validation images."""

from collections.abc import Mapping
from functools import cache

import keras
import numpy as np

from keras_reid import evaluation, inference
from keras_reid.data import PersonImages
from keras_reid.training.scoring import Evaluation

QUERIES = 400  # maximum number
PER_QUERY = 4  # pairs of one person, and as many of different persons


class PairEvaluation(Evaluation):
    """Callback that adds `val_auc` to the logs.

    `val_auc` is the probability that a pair of one person is nearer than one of different persons.

    At most 400 query images are compared, each with up to 4 gallery images of its person by other
    cameras, and with 4 images of other persons. If the optimizer keeps a moving average of the
    weights, the averaged weights are scored.

    Args:
        query, gallery: images of persons that the model is not trained on.
        batch_size: number of pairs per forward pass.
        every: number of epochs between evaluations; the last epoch is always evaluated.
        protocol: name, or `keras_reid.evaluation.Protocol` with the name of the data set.
            "no-camera" also compares images of one person by one camera.
        seed: seed of the draw of pairs.

    Attributes:
        last: last scored distances `(n,)` of the pairs.

    Raises:
        InputError: there is no pair of one person, or no pair of different persons.
    """

    last: np.ndarray

    def __init__(
        self,
        query: PersonImages,
        gallery: PersonImages,
        batch_size: int = 16,
        every: int = 1,
        protocol: str | evaluation.Protocol = "market1501",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.every = batch_size, every
        self.protocol = evaluation.Protocol.of(protocol)
        rows = validation_pairs(query, gallery, self.protocol.name != "no-camera", seed)
        self.first, self.second = query.path[rows[0]], gallery.path[rows[1]]
        owners = query.identity[rows[0]]
        self.same = owners == gallery.identity[rows[1]]
        self.persons = len(np.unique(owners[self.same]))
        evaluation.verify(np.zeros(len(self.same)), self.same)  # raises if one kind is missing
        self.verifier = cache(inference.PairVerifier)

    def score(self, model: keras.Model) -> evaluation.VerificationResult:
        """Return the error rates of a pair verifier."""
        verifier = self.verifier(model)
        self.last = verifier.distances(self.first, self.second, self.batch_size)
        return evaluation.verify(self.last, self.same)

    def summary(self, result: evaluation.VerificationResult) -> dict[str, float]:
        """Return the main scores by name."""
        return {"AUC": result.auc, "EER": result.eer}

    def calibration(self) -> evaluation.MatchCalibration | None:
        """Fit match probabilities on the last scored distances; None for fewer than 10 persons."""
        if self.persons < evaluation.FEWEST_PERSONS:
            return None
        source = f"pairs of validation persons of {self.protocol.dataset or 'the data set'}"
        return evaluation.fit_pair_calibration(self.last, self.same, source)

    def scores(self, members: Mapping[str, keras.Model]) -> dict[str, float]:
        return {"val_auc": self.score(members["model"]).auc}


def validation_pairs(
    query: PersonImages, gallery: PersonImages, across_cameras: bool = True, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of a query and a gallery image, of one person and of different persons.

    Args:
        query: images; distractors are left out.
        gallery: images; distractors are left out.
        across_cameras: leave out pairs of one person by one camera.
        seed: seed of the draw.

    Returns:
        Rows (n,) of the query and of the gallery images.
    """
    rng = np.random.default_rng(seed)
    queries = rng.permutation(np.flatnonzero(~query.distractor))[:QUERIES]
    firsts, seconds = [], []
    for row in np.sort(queries):
        same = gallery.identity == query.identity[row]
        allowed = same & ~gallery.distractor
        if across_cameras and query.camera is not None and gallery.camera is not None:
            allowed &= gallery.camera != query.camera[row]
        for candidates in (allowed, ~same & ~gallery.distractor):
            drawn = rng.permutation(np.flatnonzero(candidates))[:PER_QUERY]
            firsts += [row] * len(drawn)
            seconds += drawn.tolist()
    return np.array(firsts, int), np.array(seconds, int)
