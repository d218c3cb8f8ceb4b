"""Distances of two images by a model that compares pairs."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_reid import models
from keras_reid.errors import InputError, Shown, invalid
from keras_reid.evaluation.calibration import MatchCalibration
from keras_reid.inference.embedder import Progress, reported
from keras_reid.inference.fingerprints import weights_fingerprint
from keras_reid.inference.sources import Source

if TYPE_CHECKING:
    import keras


class PairVerifier:
    """Distances of pairs of images by a model of `models.build_pair_verifier`.

    Args:
        model: the model.
        source: its origin.
        calibration: of match probabilities; None: the model has none.

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

        self.model = model
        self.source = source or Source("memory", model.name)
        self.calibration = calibration
        self.image_size = models.image_size(model)
        images = tf.TensorSpec((None, *self.image_size, 3), tf.uint8)
        self._step = tf.function(
            lambda first, second: model([first, second], training=False)["distance"],
            input_signature=[images, images],
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

        Args:
            first, second: n images each: a path, a PIL image, a uint8 RGB array `(h, w, 3)` or
                `(n, h, w, 3)` of any size, or a list of these.
            batch_size: pairs at a time.
            progress: called with the number of pairs done and of all.

        Raises:
            InputError: no images, sides of different lengths, or an image that does not decode.
        """
        from keras_reid.data.inputs import pixel_batches, single_images

        sides = [single_images(images) for images in (first, second)]
        counts = [len(side) for side in sides]
        if counts[0] != counts[1] or not counts[0]:
            raise invalid("second", "as many images as `first`, 1 or more", Shown(f"{counts}"))
        left, right = (pixel_batches(side, batch_size, self.image_size) for side in sides)
        pairs = zip(reported(left, counts[0], progress), right, strict=True)
        return np.concatenate([self._step(*pair).numpy() for pair in pairs])

    def probability(self, distances: Any) -> np.ndarray:
        """Return the probability (n,) that pairs at these distances (n,) show one person.

        Raises:
            InputError: the model has no calibration.
        """
        if self.calibration is None:
            raise InputError(
                f"{self.source} has no calibration. Train it on data with query and gallery "
                "images, or with a hold-out set."
            )
        return self.calibration.pair_probability(distances)
