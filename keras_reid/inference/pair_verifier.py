"""Distances of two images by a model that compares pairs."""

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_reid import models
from keras_reid.errors import InputError
from keras_reid.evaluation.calibration import MatchCalibration
from keras_reid.inference.embedder import Progress
from keras_reid.inference.fingerprints import weights_fingerprint
from keras_reid.inference.sources import Source

if TYPE_CHECKING:
    import keras

BLOCK = 128  # images of a side; at 256×128, their maps at the gate take about 100 MB


class PairVerifier:
    """Distances of pairs of images by a model of `models.build_pair_verifier`.

    Args:
        model: the model.
        source: its origin.
        calibration: calibration of match probabilities; None if the model has none.

    Attributes:
        image_size: (h, w); images are resized to it.
    """

    def __init__(
        self,
        model: "keras.Model",
        source: Source | None = None,
        calibration: MatchCalibration | None = None,
    ) -> None:
        import tensorflow as tf

        from keras_reid.models.pair import halves

        self.model = model
        self.source = source or Source("memory", model.name)
        self.calibration = calibration
        self.image_size = models.image_size(model)
        head, compare = halves(model)
        images = tf.TensorSpec((None, *self.image_size, 3), tf.uint8)
        maps = tf.TensorSpec(head.output.shape, head.output.dtype)
        self._head = tf.function(
            lambda images: head(images, training=False), input_signature=[images], autograph=False
        )
        self._compare = tf.function(
            lambda pair: compare(pair, training=False),
            input_signature=[[maps, maps]],
            autograph=False,
        )

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the weights and the preprocessing."""
        return weights_fingerprint(self.model.variables, ("pair", self.image_size))

    def distances(
        self, first: Any, second: Any, batch_size: int = 16, progress: Progress | None = None
    ) -> np.ndarray:
        """Return the distances (n,) in [0, 2], float32, of n pairs of images.

        Pairs are compared in blocks of up to 128 images on each side. An image that is in several
        pairs of a block is decoded once, and passes once through the layers before the gate, where
        the two images of a pair are compared.

        Args:
            first: n images: a path, a PIL image, a uint8 RGB array `(h, w, 3)` or `(n, h, w, 3)` of
                any size, or a list of these.
            second: n images, in the same forms.
            batch_size: pairs at a time.
            progress: called with the number of pairs done and of all.

        Raises:
            InputError: no images, sides of different lengths, or an image that does not decode.
        """
        from keras_reid.data.inputs import single_images

        sides = [single_images(images) for images in (first, second)]
        counts = [len(side) for side in sides]
        if counts[0] != counts[1] or not counts[0]:
            rule = "`first` and `second` must have the same number of images, at least 1"
            raise InputError(f"{rule}, got {counts[0]} and {counts[1]}.", "second")
        images, index = zip(*map(_distinct, sides), strict=True)
        distances, done = np.empty(counts[0], np.float32), 0
        for rows in _blocks(*index):
            maps, places = zip(
                *(self._maps(i, x[rows], batch_size) for i, x in zip(images, index, strict=True)),
                strict=True,
            )
            for part in np.split(np.arange(len(rows)), range(batch_size, len(rows), batch_size)):
                pair = [values[place[part]] for values, place in zip(maps, places, strict=True)]
                distances[rows[part]] = self._compare(pair).numpy()
                done += len(part)
                if progress:
                    progress(done, len(distances))
        return distances

    def _maps(
        self, images: list[Any], index: np.ndarray, batch_size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the maps of the distinct images of an index (n,), and the row (n,) of each."""
        from keras_reid.data.inputs import pixel_batches

        rows, places = np.unique(index, return_inverse=True)
        batches = pixel_batches([images[row] for row in rows], batch_size, self.image_size)
        return np.concatenate([self._head(batch).numpy() for batch in batches]), places

    def probability(self, distances: Any) -> np.ndarray:
        """Return the probability (n,) that pairs at these distances show one person.

        Args:
            distances: (n,) of `distances`.

        Raises:
            InputError: the model has no calibration.
        """
        if self.calibration is None:
            raise InputError(
                f"{self.source} has no calibration. Train it on data with query and gallery "
                "images, or with a hold-out set."
            )
        return self.calibration.pair_probability(distances)


def _distinct(images: list[Any]) -> tuple[list[Any], np.ndarray]:
    """Return the distinct images, and the index (n,) of each image among them."""
    keys = [image if isinstance(image, str | os.PathLike) else id(image) for image in images]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    distinct = dict(zip(keys, images, strict=True))
    return [distinct[key] for key in numbers], np.array([numbers[key] for key in keys])


def _blocks(first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """Return the rows of all pairs, divided into tiles of `BLOCK` times `BLOCK` images."""
    tile = np.stack([first // BLOCK, second // BLOCK])
    order = np.lexsort(tile[::-1])
    cuts = np.flatnonzero(np.diff(tile[:, order], axis=1).any(axis=0)) + 1
    return np.split(order, cuts)
