"""Batches of image pairs of one person or of different persons, for pair verification."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.data.augment import Augmentation
from keras_reid.data.cache import Cache
from keras_reid.data.images import PersonImages
from keras_reid.data.pipeline import pk_batches
from keras_reid.errors import Shown, invalid, name_some


# The options of a stream are arguments, as in tf.data and Keras.
def pair_batches(
    images: PersonImages,
    pairs: int = 32,
    image_size: tuple[int, int] = (256, 128),
    augment: str | Augmentation = "default",
    seed: int = 0,
    first_epoch: int = 0,
    last: str = "fill",
    cache: Cache = None,
) -> tf.data.Dataset:
    """Return an endless stream of batches of b pairs, half of one person, half of different ones.

    Pairs come from a batch of `pk_batches` with P = b/2 identities and K = 2 images, `x_p` and
    `y_p`. The first half are the pairs `(x_p, y_p)` of one person, p = 0 … P−1. The second half are
    the pairs `(x_p, y_{p+1})` of different persons; the last identity is paired with the first.
    Each image is in one pair of each kind. Each epoch draws other neighbors. Cameras are ignored.

    An epoch has
    `pk_steps(images, num_identities_per_batch=pairs // 2, num_instances=2, last=last)` batches.

    Args:
        images: n training images, at least two of each identity. Unreadable ones are named and
            left out; an identity with one readable image is paired with itself.
        pairs: b, even and at least 4.
        image_size: (h, w) in pixels.
        augment: name or function of an augmentation, see `pk_batches`.
        seed: seed of the sampling and of the augmentation.
        first_epoch: first epoch of the stream.
        last: "fill" or "drop", see `sampling.plan_epoch`.
        cache: None, "memory" or a folder, see `pk_batches`.

    Returns:
        Elements `((uint8 (b, h, w, 3), uint8 (b, h, w, 3)), int32 (b,))`: first images, second
        images, and 1 for a pair of one identity, else 0.

    Raises:
        InputError: b is odd or below 4, an identity has one image, or see `pk_batches`.
    """
    if pairs < 4 or pairs % 2:
        raise invalid("pairs", "even and at least 4", pairs)
    names, counts = np.unique(images.identity, return_counts=True)
    if len(names) and counts.min() < 2:
        received = Shown(f"one of {name_some(names[counts < 2].tolist())}")
        raise invalid("images", "at least two images of each identity", received, "Add images.")
    batches = pk_batches(images, pairs // 2, 2, image_size, augment, seed, first_epoch, last, cache)
    same = tf.repeat([1, 0], pairs // 2)

    def paired(
        pixels: tf.Tensor, labels: dict[str, Any]
    ) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
        del labels
        x, y = pixels[0::2], pixels[1::2]
        first, second = tf.concat([x, x], 0), tf.concat([y, tf.roll(y, -1, 0)], 0)
        return (first, second), same

    return batches.map(paired, num_parallel_calls=tf.data.AUTOTUNE)
