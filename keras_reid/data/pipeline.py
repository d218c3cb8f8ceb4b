"""Batches of images from files: decode, resize, augment; the model receives uint8.

Images are decoded and resized one by one in parallel, and augmented a batch at a time. With a
cache, images are decoded once, and an epoch only gathers rows.
"""

import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.data.augment import Augmentation, augmentation, check_augmented, with_keypoints
from keras_reid.data.cache import Cache, load_rows, readable_or_cached
from keras_reid.data.images import ORIENTATION, SOURCE, PersonImages
from keras_reid.data.sampling import EpochPlan, classes_of, pk_rows, plan_of
from keras_reid.data.validation import readable
from keras_reid.errors import InputError, Shown, invalid, name_some
from keras_reid.pixels import BY_PILLOW
from keras_reid.skeletons import KEYPOINTS, skeleton_of

# Prefetched batches. With AUTOTUNE, the buffer of a slow model grows to dozens of batches, which
# every checkpoint of the iterator contains.
AHEAD = 4
SERVICE_SECONDS = 10  # limit for the connection to a data service


# The options of a stream are arguments, as in tf.data and Keras.
def pk_batches(
    images: PersonImages,
    num_identities_per_batch: int = 16,
    num_instances: int = 4,
    image_size: tuple[int, int] = (256, 128),
    augment: str | Augmentation = "default",
    seed: int = 0,
    first_epoch: int = 0,
    last: str = "fill",
    cache: Cache = None,
    views: int | None = None,
    camera_balanced: bool = False,
    source_sampling: str = "proportional",
    source_batches: str = "mixed",
) -> tf.data.Dataset:
    """Return an endless stream of augmented training batches: P identities with K images each.

    Batch i of epoch e is a function of (seed, e, i), so a resumed run with `first_epoch` continues
    exactly. One epoch is `pk_steps(readable(images), …)` batches.

    Args:
        images: n training images. Unreadable ones are named and left out, see `readable`.
        num_identities_per_batch: P, identities in a batch.
        num_instances: K, images of each; b = P·K.
        image_size: (h, w) in pixels.
        augment: name of an augmentation, or a function that returns uint8, see
            `augment.augmentation`.
        seed: seed of the sampling and of the augmentation.
        first_epoch: first epoch of the stream.
        last: "fill" or "drop", see `sampling.plan_epoch`.
        cache: None decodes an image each time; "memory" keeps the n·h·w·3 bytes of decoded and
            resized images in memory; another text or path is a folder for a file of that size,
            which is written once. 100,000 images of 256×128 take 9.8 GB.
        views: number of augmentations of each batch, for members of mutual learning. The first view
            equals the result without `views`. None: one view, without a tuple.
        camera_balanced: choose the K images of an identity from as many cameras as possible, see
            `sampling.epoch_rows`.
        source_sampling: number of identities of each source, of the column "source", in an epoch:
            "proportional" to its images, "balanced" (equal numbers), or "sqrt" (proportional to the
            square root); see `shares.shares_of`. The number of batches is the same.
        source_batches: "mixed" (each batch has identities of all sources), or "single" (of one).

    Returns:
        Elements (uint8 (b, h, w, 3), {"identity": int32 (b,), "camera": int32 (b,)}). Identities
        are class indices of `readable(images).classes()`, grouped K by K; K unlabeled images are a
        group. Images without cameras have no "camera"; further columns are added, with numbers for
        the names of "source". With `views`, the images are a tuple. With a column "keypoints", they
        are {"images": uint8 (b, h, w, 3), "keypoints": float32 (b, k, 3)}.

    Raises:
        InputError: no images, more than 1 % of them unreadable, invalid arguments, or
            `camera_balanced` without cameras.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = [f"{folder}/{number}.png" for number in range(6)]
        ...     for path in paths:
        ...         Image.new("RGB", (16, 32)).save(path)
        ...     train = PersonImages(paths, ["ann", "ann", "ann", "bob", "bob", "bob"], None)
        ...     batches = pk_batches(train, 2, 2, image_size=(32, 16), augment="none")
        ...     images, labels = next(iter(batches))
        >>> images.shape
        TensorShape([4, 32, 16, 3])
        >>> labels["identity"].numpy().tolist()
        [0, 0, 1, 1]
    """
    _check(images, image_size)
    change = _change(images, augment)
    if views is not None:
        checks.at_least(1, views=views)
    if camera_balanced:
        images.require_cameras("Leave camera_balanced out.")
    groups = (num_identities_per_batch, num_instances, last, source_sampling, source_batches)
    plan_of(images, *groups)  # raises before every file is read
    images = readable_or_cached(images, image_size, cache)
    labels, plan, rows = pk_stream(images, groups, seed, first_epoch, camera_balanced)
    points = images.columns.get(KEYPOINTS)

    def finish(step: tf.Tensor, element: tuple[tf.Tensor, tf.Tensor]) -> tuple[Any, dict[str, Any]]:
        rows, pixels = element
        pixels = tf.ensure_shape(pixels, (plan.batch_size, *image_size, 3))
        own = None if points is None else tf.gather(tf.constant(points, tf.float32), rows)
        inputs = tuple(change(pixels, own, step_seed(seed, step, 1 + i)) for i in range(views or 1))
        batch = {name: tf.gather(column, rows) for name, column in labels.items()}
        return inputs[0] if views is None else inputs, batch

    batches = load_rows(images, image_size, cache)(rows, plan.batch_size)
    return mapped(batches.enumerate(first_epoch * plan.batches), finish)


def pk_stream(
    images: PersonImages,
    groups: tuple[int, int, str, str, str],
    seed: int,
    first_epoch: int,
    camera_balanced: bool,
) -> tuple[dict[str, np.ndarray], EpochPlan, tf.data.Dataset]:
    """Return the labels of images, the plan of an epoch, and the stream of `pk_rows`.

    `groups` are the arguments of `plan_of` after the images.
    """
    labels, plan = labels_of(images), plan_of(images, *groups)
    cameras = labels["camera"] if camera_balanced else None
    classes = classes_of(images, groups[1])
    return labels, plan, pk_rows(classes, plan, seed, first_epoch, cameras)


def step_seed(seed: int, step: tf.Tensor, number: int) -> tf.Tensor:
    """Return the seed (2,) of a step; `number` separates its random choices.

    The seed is folded because the sampling uses (seed, epoch).
    """
    return tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), step]), number)


def mapped(batches: tf.data.Dataset, finish: Callable[..., Any]) -> tf.data.Dataset:
    """Return the finished batches; raise `InputError` if their images are not uint8."""
    finished = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return check_augmented(finished).prefetch(AHEAD)


def from_service(batches: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """Return the same batches, made by the workers of a `tf.data` service.

    A worker makes all batches of an epoch. If there is only one worker, the order of the batches is
    the same. The workers read the images, and store the caches, on their own machines.

    Args:
        batches: result of `pk_batches` or `pk_clips`.
        address: address of the dispatcher, `grpc://HOST:PORT`.

    Raises:
        InputError: malformed address, or no connection.
    """
    checks.address(data_service=address)
    host, _, port = address.removeprefix("grpc://").partition(":")
    try:  # TensorFlow repeats its attempts without an end
        socket.create_connection((host, int(port)), SERVICE_SECONDS).close()
    except (OSError, OverflowError) as error:
        received = Shown(f"'{error}' for {address}")
        raise invalid("data_service", "a running data service", received, "Start it.") from error
    service = tf.data.experimental.service
    return batches.apply(service.distribute(service.ShardingPolicy.DYNAMIC, address))


def check_service(images: PersonImages, cache: Cache) -> None:
    """Raise for images that the workers of a data service cannot decode.

    Raises:
        InputError: there is no cache, and some files can only be decoded by Pillow.
    """
    if cache is not None:
        return
    images = readable(images)
    others = images.path[images.columns[ORIENTATION] == BY_PILLOW].tolist()
    if others:
        raise InputError(
            f"With `data_service`, images must be intact JPEG or PNG files, got {len(others)} "
            f"others ({name_some(others, most=3)}). Convert them, or use a cache.",
            "data_service",
        )


def image_batches(
    images: PersonImages,
    batch_size: int = 64,
    image_size: tuple[int, int] = (256, 128),
    cache: Cache = None,
) -> tf.data.Dataset:
    """Return all images once, in their order, as uint8 (b, h, w, 3); the last batch may be smaller.

    With a column "keypoints", {"images": uint8 (b, h, w, 3), "keypoints": float32 (b, k, 3)}.

    Args:
        images: n images, from `readable`.
        batch_size: b.
        image_size: (h, w) in pixels.
        cache: as in `pk_batches`.

    Raises:
        InputError: no images, or invalid arguments.
        tf.errors.OpError: on iteration, an image that cannot be read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (20, 40), "red").save(f"{folder}/a.png")
        ...     images = PersonImages([f"{folder}/a.png"], [1], None)
        ...     (batch,) = image_batches(images, image_size=(32, 16))
        >>> batch.shape, batch[0, 0, 0].numpy().tolist()
        (TensorShape([1, 32, 16, 3]), [255, 0, 0])
    """
    _check(images, image_size)
    checks.at_least(1, batch_size=batch_size)
    rows = tf.data.Dataset.range(len(images)).batch(batch_size)
    batches = load_rows(images, image_size, cache)(rows, batch_size)
    points = images.columns.get(KEYPOINTS)

    def finish(rows: tf.Tensor, pixels: tf.Tensor) -> Any:
        if points is None:
            return pixels
        return {"images": pixels, KEYPOINTS: tf.gather(tf.constant(points, tf.float32), rows)}

    return batches.map(finish).prefetch(AHEAD)


def _change(images: PersonImages, augment: str | Augmentation) -> Callable[..., Any]:
    """Return `change(pixels, points or None, seed)`, which returns the input of the model."""
    if KEYPOINTS not in images.columns:
        alone = augmentation(augment)
        return lambda pixels, points, seed: tf.ensure_shape(alone(pixels, seed), pixels.shape)
    both = with_keypoints(augment, skeleton_of(images.columns[KEYPOINTS]).mirror)

    def change(pixels: tf.Tensor, points: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        changed, points = both(pixels, points, seed)
        return {"images": tf.ensure_shape(changed, pixels.shape), KEYPOINTS: points}

    return change


def _check(images: PersonImages, image_size: tuple[int, int]) -> None:
    checks.at_least(1, "Check the split.", images=len(images))
    if len(image_size) != 2 or min(image_size) < 1:
        raise invalid("image_size", "(height, width) in pixels", image_size, "(256, 128) is usual.")


def labels_of(images: PersonImages) -> dict[str, np.ndarray]:
    """Return the labels of all images: identities as class indices, cameras, columns.

    Cameras that are text, or integers outside int32, are numbered in sorted order, and so are the
    names of the column "source".
    """
    labels = {"identity": images.classes()[1]}
    if images.camera is not None:
        numbers = images.camera
        if numbers.dtype.kind == "U" or not np.array_equal(numbers, numbers.astype(np.int32)):
            numbers = np.unique(numbers, return_inverse=True)[1]
        labels["camera"] = numbers.astype(np.int32)
    inputs = (KEYPOINTS, ORIENTATION)
    labels |= {k: v for k, v in images.columns.items() if k not in inputs}
    if SOURCE in labels:
        labels[SOURCE] = np.unique(labels[SOURCE], return_inverse=True)[1].astype(np.int32)
    return labels
