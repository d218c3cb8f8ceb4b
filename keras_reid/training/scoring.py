"""Callbacks that score the models of a training run by query and gallery images."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_reid import evaluation, inference
from keras_reid.data import SOURCE, PersonImages, joined
from keras_reid.training.edges import members_of


class Ranking(NamedTuple):
    """Result of a ranking, with the embeddings (q, d) and (g, d) of images or tracklets."""

    result: evaluation.RankingResult
    embeddings: tuple[np.ndarray, np.ndarray]
    query: PersonImages
    gallery: PersonImages


def rank_images(
    embed: Callable[[Any], Any],
    query: PersonImages,
    gallery: PersonImages,
    protocol: str | evaluation.Protocol = "market1501",
) -> Ranking:
    """Rank the gallery for each query by the distance of their embeddings.

    Args:
        embed: function from images to embeddings `(n, d)`, one for each image or tracklet.
        query: images or tracklets.
        gallery: images or tracklets.
        protocol: see `keras_reid.evaluation.rank`.

    Returns:
        The result, with the embeddings and the labels of both sets.
    """
    labels = query.per_tracklet(), gallery.per_tracklet()
    embeddings = embed(query), embed(gallery)
    return Ranking(evaluation.rank(embeddings, *labels, protocol), embeddings, *labels)


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Set the weights to the moving averages of the optimizers within the block.

    Args:
        model: compiled model or `MutualLearner`. Models without `use_ema` do not change.
    """
    members = members_of(model).values()
    averaged = [member for member in members if getattr(member.optimizer, "use_ema", False)]
    before = [[v.numpy() for v in member.trainable_variables] for member in averaged]
    for member in averaged:
        member.optimizer.finalize_variable_values(member.trainable_variables)
    try:
        yield
    finally:
        for member, values in zip(averaged, before, strict=True):
            for variable, value in zip(member.trainable_variables, values, strict=True):
                variable.assign(value)


class Evaluation(keras.callbacks.Callback):
    """Base of callbacks that score models after some epochs and add the scores to the logs.

    Attributes:
        every: number of epochs between evaluations; the last epoch is always evaluated.
    """

    every = 1

    def scores(self, members: Mapping[str, keras.Model]) -> dict[str, float]:
        """Return the entries of the logs for the trained models."""
        raise NotImplementedError

    def by_source(self) -> dict[str, Any]:
        """Return the last result of each source of a union; empty if there are no sources."""
        return {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        last = epoch + 1 == self.params.get("epochs")
        if logs is not None and (last or (epoch + 1) % self.every == 0):
            with averaged_weights(self.model):
                logs.update(self.scores(members_of(self.model)))


class RetrievalEvaluation(Evaluation):
    """Callback that adds `val_mAP` and `val_rank1` to the logs, for example for `ModelCheckpoint`.

    For a `MutualLearner` these are the scores of the best member; `val_NAME_mAP` and
    `val_NAME_rank1` are the scores of each member. With a moving average of the weights (`use_ema`)
    the averaged weights are evaluated. Selecting an epoch by scores of the test set overestimates
    the result: use hold-out images.

    For a union of data sets, these are the scores of all queries in the gallery of all sources.
    `val_SOURCE_mAP` and `val_SOURCE_rank1` are the scores of a source in its own gallery.

    Args:
        query, gallery: images, or tracklets with a column "tracklet".
        batch_size: number of images per forward pass.
        every: number of epochs between evaluations; the last epoch is always evaluated.
        protocol: name, or `keras_reid.evaluation.Protocol` with the name of the data set.
        flip: add the embedding of the mirrored image; see `keras_reid.inference.load`.
        frames: number of frames of a clip, for tracklets and a model of `models.build_tracklet`.

    Attributes:
        last: last result with its embeddings.
    """

    last: Ranking

    def __init__(
        self,
        query: PersonImages,
        gallery: PersonImages,
        batch_size: int = 16,
        every: int = 1,
        protocol: str | evaluation.Protocol = "market1501",
        flip: bool = False,
        frames: int = 8,
    ) -> None:
        super().__init__()
        self.query, self.gallery = query, gallery
        self.batch_size, self.every, self.frames = batch_size, every, frames
        self.protocol = evaluation.Protocol.of(protocol)
        self.embedder = cache(lambda model: inference.load_embedder(model, flip=flip))

    def score(self, model: keras.Model) -> evaluation.RankingResult:
        """Return the ranking result of a model of `models.build`."""
        embedder = self.embedder(model)

        def embed(images: PersonImages) -> np.ndarray:
            return embedder.embed(images, self.batch_size, self.frames)

        self.last = rank_images(embed, self.query, self.gallery, self.protocol)
        return self.last.result

    def by_source(self) -> dict[str, evaluation.RankingResult]:
        """Return the last result of each source of a union, ranked in the gallery of the source."""
        sides = self.last.query, self.last.gallery
        sources = [side.columns.get(SOURCE, np.zeros(0, str)) for side in sides]
        results = {}
        for name in np.unique(sources[0]).tolist():
            rows = [source == name for source in sources]
            query, gallery = (side[own] for side, own in zip(sides, rows, strict=True))
            both = zip(self.last.embeddings, rows, strict=True)
            embeddings = tuple(embedding[own] for embedding, own in both)
            protocol = replace(self.protocol, dataset=name)
            results[name] = evaluation.rank(embeddings, query, gallery, protocol)
        return results

    def summary(self, result: evaluation.RankingResult) -> dict[str, float]:
        """Return the main scores by name."""
        return {"mAP": result.mAP, "rank-1": result.rank(1)}

    def calibration(self) -> evaluation.MatchCalibration | None:
        """Fit match probabilities on the last embeddings.

        Returns:
            None if there are fewer than 10 persons with 2 images.
        """
        persons = joined(self.last.query, self.last.gallery)
        labeled = ~persons.distractor
        identities = persons.identity[labeled]
        if (np.unique(identities, return_counts=True)[1] > 1).sum() < evaluation.FEWEST_PERSONS:
            return None
        embeddings = np.concatenate(self.last.embeddings)[labeled]
        source = f"validation persons of {self.protocol.dataset or 'the data set'}"
        return evaluation.fit_calibration([(embeddings, identities)], source)

    def scores(self, members: Mapping[str, keras.Model]) -> dict[str, float]:
        results, by_source = {}, {}
        for name, model in members.items():
            results[name], by_source[name] = self.score(model), self.by_source()
        best = max(results, key=lambda name: results[name].mAP)
        named = {f"val_{name}": result for name, result in by_source[best].items()}
        named["val"] = results[best]
        if len(results) > 1:
            named |= {f"val_{name}": result for name, result in results.items()}
        return {
            f"{name}_{key}": score
            for name, result in named.items()
            for key, score in (("mAP", result.mAP), ("rank1", result.rank(1)))
        }
