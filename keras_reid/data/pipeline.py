"""From files to batches: decode, resize, augment; uint8 all the way to the model.

Images are decoded and resized one by one in parallel, and augmented a batch at a time. With a
cache the first half is done once, and an epoch only gathers rows.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.data import cache as caching
from keras_reid.data.augment import Recipe, check_augmented, recipe, with_keypoints
from keras_reid.data.images import ORIENTATION, PersonImages, name_some
from keras_reid.data.sampling import pk_rows, pk_steps
from keras_reid.data.validation import readable, too_large
from keras_reid.errors import InputError
from keras_reid.pixels import BY_PILLOW, graph_decode, graph_decode_upright, graph_resize
from keras_reid.skeletons import KEYPOINTS, skeleton_of

Cache = str | os.PathLike[str] | None
# A fixed number: left to tf.data, the buffer grows to dozens of batches while the model is slow,
# and all of them go into every checkpoint of the iterator.
AHEAD = 4
ANSWERS = 10  # seconds in which a data service answers

Load = Callable[[tf.data.Dataset, int], tf.data.Dataset]


def pk_batches(
    images: PersonImages,
    num_identities_per_batch: int = 16,
    num_instances: int = 4,
    image_size: tuple[int, int] = (256, 128),
    augment: str | Recipe = "default",
    seed: int = 0,
    first_epoch: int = 0,
    last: str = "fill",
    cache: Cache = None,
    views: int | None = None,
    camera_balanced: bool = False,
) -> tf.data.Dataset:
    """An endless stream of training batches: P identities with K images each, augmented.

    Batch i of epoch e is a function of (seed, e, i) alone, so a run that is resumed with
    `first_epoch` continues as if it had not stopped. One epoch is `pk_steps(images, …)` batches,
    counted on what `readable(images)` leaves.

    Args:
        images: n training images. Unreadable ones are named and left out, see `readable`.
        num_identities_per_batch: P, identities in a batch.
        num_instances: K, images of each; b = P·K.
        image_size: (h, w) in pixels.
        augment: name of a recipe, or a function that returns uint8, see `augment.recipe`.
        seed: of the sampling and of the augmentation.
        first_epoch: the epoch to begin with.
        last: "fill" or "drop", see `sampling.deal`.
        cache: None decodes every image anew each time; "memory" keeps the n·h·w·3 bytes of
            decoded and resized images in memory; any other text or path is a folder with a file of
            that length, made once and paged in as needed. 100,000 images of 256×128 take 9.8 GB.
        views: how often each batch is augmented, for members of mutual learning that see the same
            images each in its own way; the first is what there is without. None: one, no tuple.
        camera_balanced: the K images of an identity are of as many cameras as possible, see
            `sampling.epoch_rows`.

    Returns:
        Elements (uint8 (b, h, w, 3), {"identity": int32 (b,), "camera": int32 (b,)}), identities
        as class indices of the readable images' `classes()`, grouped K by K; no "camera" for
        images without cameras; further columns of the images beside them. With `views`, a tuple of
        so many images instead of the images. For images with a column "keypoints", instead of the
        images {"images": uint8 (b, h, w, 3), "keypoints": float32 (b, k, 3)}.

    Raises:
        InputError: no images, more than 1 % of them unreadable, P, K, size, recipe, `last`, cache
            or views that cannot be, or `camera_balanced` without cameras.
    """
    _check(images, image_size)
    change = _change(images, augment)
    if views is not None:
        checks.at_least(1, "one for each member, or None", views=views)
    check_cameras(images, camera_balanced)
    pk_steps(
        images, num_identities_per_batch, num_instances, last
    )  # refuses before every file is read
    images = _readable_or_cached(images, image_size, cache)
    load = load_rows(images, image_size, cache)
    labels, points = labels_of(images), images.columns.get(KEYPOINTS)
    steps = pk_steps(images, num_identities_per_batch, num_instances, last)
    shape = (num_identities_per_batch * num_instances, *image_size, 3)

    def finish(step: tf.Tensor, element: tuple[tf.Tensor, tf.Tensor]) -> tuple[Any, dict[str, Any]]:
        rows, pixels = element

        def view(number: int) -> Any:
            # Folded, so that augmentation and sampling, which counts in (seed, epoch), never agree.
            pair = tf.stack([tf.constant(seed, tf.int64), step])
            own = None if points is None else tf.gather(tf.constant(points, tf.float32), rows)
            return change(tf.ensure_shape(pixels, shape), own, tf.random.fold_in(pair, number))

        seen = view(1) if views is None else tuple(map(view, range(1, views + 1)))
        return seen, {name: tf.gather(column, rows) for name, column in labels.items()}

    cameras = labels["camera"] if camera_balanced else None
    rows = pk_rows(
        labels["identity"],
        num_identities_per_batch,
        num_instances,
        seed,
        first_epoch,
        last,
        cameras,
    )
    batches = load(rows, num_identities_per_batch * num_instances).enumerate(first_epoch * steps)
    augmented = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return check_augmented(augmented).prefetch(AHEAD)


def from_service(batches: tf.data.Dataset, address: str) -> tf.data.Dataset:
    """The batches, made by the workers of a `tf.data` service: each epoch by one of them.

    With one worker they come in the same order. Images and caches are read where the workers are.

    Args:
        batches: of `pk_batches` or `pk_clips`.
        address: of the dispatcher, `grpc://HOST:PORT`.

    Raises:
        InputError: another address, or one at which nobody answers.
    """
    checks.address(data_service=address)
    host, _, port = address.removeprefix("grpc://").partition(":")
    try:  # for TensorFlow would ask again for ever
        socket.create_connection((host, int(port)), ANSWERS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"a data service answers at its address: {address} gave '{error}'; start it first",
            "data_service",
        ) from error
    service = tf.data.experimental.service
    return batches.apply(service.distribute(service.ShardingPolicy.DYNAMIC, address))


def check_service(images: PersonImages, cache: Cache) -> None:
    """Raise for images that the workers of a data service cannot decode.

    Raises:
        InputError: files that only Pillow decodes, which works in this process alone; no cache.
    """
    if cache is not None:
        return
    images = readable(images)
    others = images.path[images.columns[ORIENTATION] == BY_PILLOW].tolist()
    if others:
        raise InputError(
            f"With `data_service`, images must be intact JPEG or PNG files, got {len(others)} "
            f"others ({name_some(others, most=3)}). Convert them, or give a cache.",
            "data_service",
        )


def image_batches(
    images: PersonImages,
    batch_size: int = 64,
    image_size: tuple[int, int] = (256, 128),
    cache: Cache = None,
) -> tf.data.Dataset:
    """All images once, in the order of the columns, as uint8 (b, h, w, 3); the last batch is short.

    With a column "keypoints", {"images": uint8 (b, h, w, 3), "keypoints": float32 (b, k, 3)}.

    Args:
        images: n images that can be read: pass them through `readable` first.
        batch_size: b.
        image_size: (h, w) in pixels.
        cache: as in `pk_batches`.

    Raises:
        InputError: no images, or a size or cache that cannot be.
        tf.errors.OpError: on iteration, an image that cannot be read.
    """
    _check(images, image_size)
    checks.at_least(1, batch_size=batch_size)
    rows = tf.data.Dataset.range(len(images)).batch(batch_size)
    batches = load_rows(images, image_size, cache)(rows, batch_size)
    points = images.columns.get(KEYPOINTS)
    if points is None:
        return batches.map(lambda rows, pixels: pixels).prefetch(AHEAD)
    points = tf.constant(points, tf.float32)
    return batches.map(
        lambda rows, pixels: {"images": pixels, KEYPOINTS: tf.gather(points, rows)}
    ).prefetch(AHEAD)


def decoding_batches(
    paths: Sequence[str], image_size: tuple[int, int], batch_size: int
) -> tf.data.Dataset:
    """(rows (b,), uint8 (b, h, w, 3)) of the files that decode, in their order.

    Args:
        paths: n files, of which some may be broken, missing or `too_large`.
        image_size: (h, w) in pixels.
        batch_size: b.
    """
    rows = np.flatnonzero([not too_large(path) for path in paths])

    @tf.autograph.experimental.do_not_convert
    def read(row: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return row, graph_resize(graph_decode(tf.io.read_file(path)), image_size)

    files = tf.data.Dataset.from_tensor_slices((rows, np.array(paths, object)[rows].astype(str)))
    read_files = files.map(read, num_parallel_calls=tf.data.AUTOTUNE).ignore_errors()
    return read_files.batch(batch_size).prefetch(AHEAD)


def _change(images: PersonImages, augment: str | Recipe) -> Callable[..., Any]:
    """`change(pixels, points or None, seed)`: what the model sees of these pixels."""
    if KEYPOINTS not in images.columns:
        alone = recipe(augment)
        return lambda pixels, points, seed: tf.ensure_shape(alone(pixels, seed), pixels.shape)
    both = with_keypoints(augment, skeleton_of(images.columns[KEYPOINTS]).mirror)

    def change(pixels: tf.Tensor, points: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        changed, points = both(pixels, points, seed)
        return {"images": tf.ensure_shape(changed, pixels.shape), KEYPOINTS: points}

    return change


def _check(images: PersonImages, image_size: tuple[int, int]) -> None:
    if len(images) == 0:
        raise InputError("batches need at least one image, got none: check the split that is used")
    if len(image_size) != 2 or min(image_size) < 1:
        raise InputError(
            f"image_size must be (height, width), both 1 or more, got {image_size}: "
            "pass for instance (256, 128)"
        )


def check_cameras(images: PersonImages, camera_balanced: bool) -> None:
    """Raise if batches are balanced over cameras and the images have none."""
    if camera_balanced and images.camera is None:
        raise InputError(
            "With `camera_balanced`, images must have cameras, got none. Leave it out."
        )


def labels_of(images: PersonImages) -> dict[str, np.ndarray]:
    """The labels of a batch of all images: identities as class indices, cameras, columns.

    Cameras that are text, or integers beyond int32, are numbered in sorted order.
    """
    labels = {"identity": images.classes()[1]}
    if images.camera is not None:
        numbers = images.camera
        if numbers.dtype.kind == "U" or not np.array_equal(numbers, numbers.astype(np.int32)):
            numbers = np.unique(numbers, return_inverse=True)[1]
        labels["camera"] = numbers.astype(np.int32)
    inputs = (KEYPOINTS, ORIENTATION)
    return labels | {k: v for k, v in images.columns.items() if k not in inputs}


def _readable_or_cached(
    images: PersonImages, image_size: tuple[int, int], cache: Cache
) -> PersonImages:
    """Return the readable images; if a cache file is complete, these are all."""
    if cache not in (None, "memory"):
        file = caching.cache_file(cache, images, image_size)
        if caching.complete(file, (len(images), *image_size, 3)):
            return images
    return readable(images)


def load_rows(images: PersonImages, image_size: tuple[int, int], cache: Cache) -> Load:
    """`load(rows, b)`: batches of rows (b,) to batches of (rows (b,), uint8 (b, h, w, 3))."""
    path, turns = tf.constant(images.path), images.columns.get(ORIENTATION)
    in_graph = turns is not None and (turns != BY_PILLOW).all()

    @tf.autograph.experimental.do_not_convert
    def read(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        turn = BY_PILLOW if turns is None else tf.constant(turns)[row]
        decode = graph_decode_upright if in_graph else graph_decode
        return row, graph_resize(decode(tf.io.read_file(path[row]), turn), image_size)

    def from_files(rows: tf.data.Dataset, batch: int) -> tf.data.Dataset:
        return rows.unbatch().map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch)

    if cache is None:
        return from_files
    pool = _cached(images, image_size, cache, from_files)

    def from_pool(rows: tf.data.Dataset, batch: int) -> tf.data.Dataset:
        del batch
        return rows.map(
            lambda rows: (rows, tf.gather(pool, rows)), num_parallel_calls=tf.data.AUTOTUNE
        )

    return from_pool


def _cached(
    images: PersonImages, image_size: tuple[int, int], cache: str | os.PathLike[str], load: Load
) -> tf.Tensor:
    """All images (n, h, w, 3), decoded by `load` unless a cache file holds them already."""

    def chunks() -> Iterator[np.ndarray]:
        for _, pixels in load(tf.data.Dataset.range(len(images)).batch(64), 64):
            yield pixels.numpy()

    shape = (len(images), *image_size, 3)
    if cache == "memory":
        return caching.in_memory(chunks(), shape)
    file = caching.cache_file(cache, images, image_size)
    if not caching.complete(file, shape):
        caching.write(file, chunks(), shape)
    return caching.read(file, shape)
