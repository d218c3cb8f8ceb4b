"""Batches of image pairs that show one person or two, for pair verification."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid.data.augment import Recipe
from keras_reid.data.images import PersonImages, name_some
from keras_reid.data.pipeline import Cache, pk_batches
from keras_reid.errors import InputError


def pair_batches(
    images: PersonImages,
    pairs: int = 32,
    image_size: tuple[int, int] = (256, 128),
    augment: str | Recipe = "default",
    seed: int = 0,
    first_epoch: int = 0,
    last: str = "fill",
    cache: Cache = None,
) -> tf.data.Dataset:
    """An endless stream of batches of b pairs, half of them of one person, half of two.

    A batch of `pk_batches` with P = b/2 identities and K = 2 images of each, `x_p` and `y_p`,
    gives the pairs of one person `(x_p, y_p)` for p = 0 … P−1, and after them the pairs of two
    persons `(x_p, y_{p+1})`, where the identity after the last is the first. So each of the b
    images of the PK batch is in one pair of each kind, and each identity meets two others. Which
    identities are neighbors is drawn anew in each epoch. Cameras are not looked at.

    Seeds, epochs, resuming, augmentation and caching are those of `pk_batches`; an epoch has
    `pk_steps(images, num_identities_per_batch=pairs // 2, num_instances=2, last=last)` batches.

    Args:
        images: n training images, at least two of each identity. Unreadable ones are named and
            left out; an identity that this leaves with one image is paired with itself.
        pairs: b, even and at least 4.
        image_size: (h, w) in pixels.
        augment, seed, first_epoch, last, cache: as in `pk_batches`.

    Returns:
        Elements `((uint8 (b, h, w, 3), uint8 (b, h, w, 3)), int32 (b,))`: first images, second
        images, and 1 where they show the same identity, 0 where not.

    Raises:
        InputError: b is odd or below 4, an identity has one image, or what `pk_batches` refuses.
    """
    if pairs < 4 or pairs % 2:
        raise InputError(
            f"pairs must be even and 4 or more, half of one identity and half of two, got {pairs}"
        )
    names, counts = np.unique(images.identity, return_counts=True)
    if len(names) and counts.min() < 2:
        raise InputError(
            "a pair of one identity needs two images of it, but there is only one of "
            f"{name_some(names[counts < 2].tolist())}: leave these identities out or add images"
        )
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
