"""Scores of a pair verifier on pairs of validation images."""

from typing import Any

import keras
import numpy as np

from keras_reid import evaluation, inference
from keras_reid.data import PersonImages
from keras_reid.training.callbacks import averaged_weights

QUERIES = 400  # at most
PER_QUERY = 4  # pairs of one person, and as many of two


class PairEvaluation(keras.callbacks.Callback):
    """Add `val_auc` to the logs: the probability that a pair of one person is nearer.

    At most 400 query images are compared, each with up to 4 gallery images of its person by other
    cameras, and with 4 of others. Under a moving average of the weights the averages are scored.

    Args:
        query, gallery: images of persons that the model is not trained on.
        batch_size: pairs at a time.
        every: number of epochs between scores; the last epoch is always scored.
        protocol: "no-camera" also compares images of one person by one camera.
        dataset: name of the data set for the calibration.
        seed: of the draw of pairs.

    Raises:
        InputError: pairs of one kind only.
    """

    def __init__(
        self,
        query: PersonImages,
        gallery: PersonImages,
        batch_size: int = 16,
        every: int = 1,
        protocol: str = "market1501",
        dataset: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.every = batch_size, every
        self.source = f"pairs of validation persons of {dataset or 'the data set'}"
        self.rows = validation_pairs(query, gallery, protocol != "no-camera", seed)
        self.same = query.identity[self.rows[0]] == gallery.identity[self.rows[1]]
        evaluation.verify(np.zeros(len(self.same)), self.same)  # raises if one kind is missing
        self.first, self.second = query.path[self.rows[0]], gallery.path[self.rows[1]]
        self.persons = len(np.unique(query.identity[self.rows[0]][self.same]))
        self.last: np.ndarray = np.zeros(0)

    def score(self, model: keras.Model) -> evaluation.VerificationResult:
        """Return the error rates of a pair verifier."""
        verifier = inference.PairVerifier(model)
        self.last = verifier.distances(self.first, self.second, self.batch_size)
        return evaluation.verify(self.last, self.same)

    def summary(self, result: evaluation.VerificationResult) -> dict[str, float]:
        """Return the main scores by name."""
        return {"AUC": result.auc, "EER": result.eer}

    def calibration(self) -> evaluation.MatchCalibration | None:
        """Fit match probabilities on the last scored distances; None for less than 10 persons."""
        if self.persons < evaluation.FEWEST_PERSONS:
            return None
        return evaluation.fit_pair_calibration(self.last, self.same, self.source)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        last = epoch + 1 == self.params.get("epochs")
        if logs is not None and (last or (epoch + 1) % self.every == 0):
            with averaged_weights(self.model):
                logs["val_auc"] = self.score(self.model).auc


def validation_pairs(
    query: PersonImages, gallery: PersonImages, across_cameras: bool = True, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of a query and a gallery image, of one person and of two.

    Args:
        query, gallery: images; distractors are left out.
        across_cameras: leave out pairs of one person by one camera.
        seed: of the draw.

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
