"""Augmentation of a batch of uint8 images, as a function of the images and a seed.

An `Augmentation` is a function of images uint8 (b, h, w, 3) and a seed int (2,), which returns
uint8 (b, h, w, 3). The ones of this file are stateless: the same seed gives the same batch. They
choose rows and columns of the pixels and a box to erase for each image; one compiled gather then
moves the pixels. At 256×128 on two shared cores, they reach 5,000 to 13,000 images/s compiled, and
400 to 1,500 as separate operations.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import tensorflow as tf

from keras_reid import checks
from keras_reid.errors import InputError, invalid

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

IMAGENET_MEAN = (124, 116, 104)


class Moves(NamedTuple):
    """Source of each pixel, as rows (b, h) and columns (b, w), and the erased boxes (b, 4)."""

    rows: tf.Tensor
    columns: tf.Tensor
    box: tf.Tensor


# "flip" mirrors half of the images. "crop" also shifts them by up to 10 of 256×128 pixels, with
# black padding. "default" also erases a box (Luo et al., Bag of Tricks for person
# re-identification, CVPRW 2019, arXiv:1903.07071). Erasing hurts transfer to other cameras
# (section 5 there).
GEOMETRIC = ("none", "flip", "crop", "default")

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)


def color(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Multiply brightness, contrast and saturation of each image by factors in 0.7..1.3."""
    x = tf.cast(images, tf.float32)
    shape = [3, tf.shape(images)[0], 1, 1, 1]
    bright, contrast, vivid = tf.unstack(tf.random.stateless_uniform(shape, seed, 0.7, 1.3))
    x *= bright
    mean = tf.reduce_mean(_gray(x), axis=(1, 2), keepdims=True)
    x = mean + contrast * (x - mean)
    x = _gray(x) + vivid * (x - _gray(x))
    return tf.saturate_cast(tf.round(x), tf.uint8)


def grayscale(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Convert one image in five, on average, to gray."""
    x = tf.saturate_cast(tf.round(_gray(tf.cast(images, tf.float32))), tf.uint8)
    return tf.where(_coin(images, seed, 0.2), tf.broadcast_to(x, tf.shape(images)), images)


def blur(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Blur one image in five, on average, by the binomial filter (1, 2, 1)/4 in both directions."""
    one = tf.constant([1.0, 2.0, 1.0]) / 4
    filters = tf.tile((one[:, None] * one)[:, :, None, None], [1, 1, 3, 1])
    edged = tf.pad(tf.cast(images, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    x = tf.nn.depthwise_conv2d(edged, filters, [1, 1, 1, 1], "VALID")
    return tf.where(_coin(images, seed, 0.2), tf.saturate_cast(tf.round(x), tf.uint8), images)


def _gray(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x * tf.constant(LUMA), axis=-1, keepdims=True)


def _coin(images: tf.Tensor, seed: tf.Tensor, fraction: float) -> tf.Tensor:
    shape = [tf.shape(images)[0], 1, 1, 1]
    return tf.random.stateless_uniform(shape, seed) < fraction


# These do not move pixels, so they combine with all others and with keypoints.
IN_PLACE: dict[str, Augmentation] = {"color": color, "grayscale": grayscale, "blur": blur}

KERAS_CV: dict[str, Callable[[ModuleType], Any]] = {
    "randaugment": lambda keras_cv: keras_cv.layers.RandAugment(
        value_range=(0, 255), augmentations_per_image=2, magnitude=0.3
    ),
    "augmix": lambda keras_cv: keras_cv.layers.AugMix(value_range=(0, 255)),
    "color_jitter": lambda keras_cv: keras_cv.layers.RandomColorJitter(
        value_range=(0, 255),
        brightness_factor=0.2,
        contrast_factor=0.2,
        saturation_factor=0.2,
        hue_factor=0.03,
    ),
}


def augmentation(augment: str | Augmentation) -> Augmentation:
    """Return the augmentation of that name; return a function unchanged.

    A name may be followed by `+color`, `+grayscale` and `+blur`, as in `default+color+grayscale`,
    so that a model relies less on the colors of its cameras.

    `randaugment` (Cubuk et al., CVPRW 2020, arXiv:1909.13719), `augmix` (Hendrycks et al., ICLR
    2020, arXiv:1912.02781) and `color_jitter` run a KerasCV layer before `default`. They have a
    random state: runs do not repeat, resumed runs differ, and checkpoints cannot contain the
    iterator. They are also slow: at 256×128 `default` reaches 6,700 images/s, these 110, 36 and 77.

    Args:
        augment: name, or a function of images uint8 (b, h, w, 3) and a seed int (2,).

    Returns:
        Function that returns uint8 (b, h, w, 3); the same seed gives the same images.

    Raises:
        InputError: unknown name, or KerasCV is required and not installed.

    Example:
        >>> images = tf.fill((2, 8, 4, 3), tf.constant(100, tf.uint8))
        >>> changed = augmentation("none+color")(images, (0, 1))
        >>> changed.shape, changed.dtype.name
        (TensorShape([2, 8, 4, 3]), 'uint8')
    """
    if callable(augment):
        return augment
    name, *added = augment.split("+")
    if name not in (*GEOMETRIC, *KERAS_CV) or not {*added} <= {*IN_PLACE}:
        raise invalid("augment", f"a function, or {_choices(*GEOMETRIC, *KERAS_CV)}", augment)
    layer = KERAS_CV[name](checks.installed("keras_cv", "keras-cv")) if name in KERAS_CV else None

    def augmented(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        for number, (change_name, change) in enumerate(IN_PLACE.items(), start=1):
            if change_name in added:
                images = change(images, tf.random.fold_in(seed, number))
        if layer is not None:
            changed = tf.clip_by_value(tf.round(layer(images, training=True)), 0, 255)
            images = tf.ensure_shape(tf.cast(changed, tf.uint8), images.shape)
        return images if name == "none" else _rearrange(images, *_moves(name, images, seed))

    return augmented


def check_augmented(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Return the batches; raise `InputError` if an augmentation returned other types than uint8.

    A model would truncate the fractions of other types.
    """
    views = batches.element_spec[0]
    for view in views if isinstance(views, tuple) else (views,):
        images = view if isinstance(view, tf.TensorSpec) else view.get("images", view.get("clips"))
        if images.dtype != tf.uint8:
            raise InputError(
                f"`augment` must return uint8 images, got {images.dtype.name}. End it with "
                "`tf.saturate_cast(tf.round(images), tf.uint8)`, with pixels from 0 to 255.",
                "augment",
            )
    return batches


def with_keypoints(
    augment: str | Augmentation, mirror: tuple[int, ...]
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return an augmentation of `(images, keypoints (b, k, 3), seed)`: points move with pixels.

    The images equal those of the augmentation without points. A mirrored image exchanges left and
    right points. A point outside the image or in the erased box gets confidence 0.

    Args:
        augment: none, flip, crop or default, with any of `IN_PLACE` added by `+`; the others do not
            return the moves of the pixels.
        mirror: index of the opposite point of each point.

    Raises:
        InputError: the augmentation does not return the moves of the pixels.
    """
    name = augment.partition("+")[0] if isinstance(augment, str) else ""
    if name not in GEOMETRIC:
        raise invalid("augment", f"{_choices(*GEOMETRIC)}, for images with keypoints", augment)
    change = augmentation(augment)

    def changed(
        images: tf.Tensor, keypoints: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        return change(images, seed), moved(keypoints, _moves(name, images, seed), mirror)

    return changed


def _choices(*names: str) -> str:
    added = ", ".join(f"+{name}" for name in IN_PLACE)
    return f"one of {', '.join(names)}, optionally with {added}"


def moved(keypoints: tf.Tensor, moves: Moves, mirror: tuple[int, ...]) -> tf.Tensor:
    """Return points (b, k, 3), with x and y as shares of width and height, after the moves."""
    x, flips = _followed(keypoints[..., 0], moves.columns)
    y, _ = _followed(keypoints[..., 1], moves.rows)
    height, width = tf.shape(moves.rows)[1], tf.shape(moves.columns)[1]
    top, left, bottom, right = tf.unstack(tf.cast(moves.box[:, :, None], tf.float32), axis=1)
    down, across = y * tf.cast(height, tf.float32), x * tf.cast(width, tf.float32)
    erased = (down >= top) & (down < bottom) & (across >= left) & (across < right)
    visible = (x >= 0) & (x <= 1) & (y >= 0) & (y <= 1) & ~erased
    confidence = tf.where(visible, keypoints[..., 2], 0.0)
    points = tf.stack([x, y, confidence], axis=-1)
    return tf.where(flips[:, None, None], tf.gather(points, mirror, axis=1), points)


def _followed(fraction: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the new shares (b, k), and a mask (b,) of reversed rows of places (b, n).

    Pixel p comes from `places[p] = first ± p`, so pixel q moves to `±(q − first)`. The center of
    pixel p is at the fraction `(p + ½)/n`.
    """
    size = tf.cast(tf.shape(places)[1], tf.float32)
    first, last = tf.cast(places[:, :1], tf.float32), tf.cast(places[:, -1:], tf.float32)
    back = last < first
    pixel = fraction * size - 0.5 - first
    return (tf.where(back, -pixel, pixel) + 0.5) / size, back[:, 0]


def _moves(name: str, images: tf.Tensor, seed: tf.Tensor) -> Moves:
    """Return the moves of an augmentation; those of KerasCV move pixels like "default"."""
    b, h, w, _ = tf.unstack(tf.shape(images))
    rows, columns = tf.tile(tf.range(h)[None], [b, 1]), tf.tile(tf.range(w)[None], [b, 1])
    box = tf.zeros([b, 4], tf.int32)
    if name not in ("none", "flip"):
        seed, crop_seed, erase_seed = tf.unstack(tf.random.split(seed, 3))
        row_seed, column_seed = tf.unstack(tf.random.split(crop_seed))
        rows = _shifted(rows, 10 / 256, row_seed)
        columns = _shifted(columns, 10 / 128, column_seed)
        if name != "crop":
            box = _erased(images, erase_seed)
    if name != "none":
        coin = tf.random.stateless_uniform([b, 1], seed) < 0.5
        columns = tf.where(coin, columns[:, ::-1], columns)
    return Moves(rows, columns, box)


def _shifted(places: tf.Tensor, fraction: float, seed: tf.Tensor) -> tf.Tensor:
    """Shift by up to the padding in both directions, which equals a crop of the padded image."""
    b, size = tf.unstack(tf.shape(places))
    pad = tf.cast(tf.round(fraction * tf.cast(size, tf.float32)), tf.int32)
    return places + tf.random.stateless_uniform([b, 1], seed, -pad, pad + 1, tf.int32)


def _erased(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return boxes (b, 4), top, left, bottom, right: 2 to 40 % of the area, for half of the images.

    The ratio of height to width is log-uniform in 0.3..3.33, limited to boxes that fit (random
    erasing, Zhong et al., AAAI 2020, arXiv:1708.04896).
    """
    b, height, width, _ = tf.unstack(tf.shape(images))
    h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    coin, fraction, shape, top, left = tf.unstack(tf.random.stateless_uniform([5, b], seed))
    area = (0.02 + 0.38 * fraction) * h * w
    low = tf.math.log(tf.clip_by_value(area / w**2, 0.3, 3.33))
    high = tf.math.log(tf.clip_by_value(h**2 / area, 0.3, 3.33))
    ratio = tf.exp(low + (high - low) * shape)
    tall, wide = tf.minimum(tf.sqrt(area * ratio), h), tf.minimum(tf.sqrt(area / ratio), w)
    top, left = top * (h - tall), left * (w - wide)
    box = tf.cast(tf.round(tf.stack([top, left, top + tall, left + wide], 1)), tf.int32)
    return tf.where(coin[:, None] < 0.5, box, 0)


@tf.function(jit_compile=True, autograph=False)
def _rearrange(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """`out[i, y, x] = images[i, rows[i, y], columns[i, x]]`; black outside, mean inside the box.

    Args:
        images: uint8 (b, h, w, 3).
        rows: (b, h) int32; rows outside the image are black.
        columns: (b, w) int32; columns outside the image are black.
        box: (b, 4) int32, top, left, bottom, right, the last two excluded.
    """
    _, h, w, _ = tf.unstack(tf.shape(images))
    pixels = tf.gather(images, tf.clip_by_value(rows, 0, h - 1), axis=1, batch_dims=1)
    pixels = tf.gather(pixels, tf.clip_by_value(columns, 0, w - 1), axis=2, batch_dims=1)
    y, x = rows[:, :, None], columns[:, None, :]
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    pixels = tf.where(inside[..., None], pixels, tf.zeros_like(pixels))
    top, left, bottom, right = tf.unstack(box[:, :, None, None], axis=1)
    y, x = tf.range(h)[:, None], tf.range(w)
    erased = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return tf.where(erased[..., None], tf.constant(IMAGENET_MEAN, tf.uint8), pixels)
