"""Batches of clips: some frames of a tracklet, padded to one length, with a mask."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.data.augment import Recipe, check_augmented, recipe
from keras_reid.data.images import PersonImages
from keras_reid.data.pipeline import AHEAD, Cache, check_cameras, labels_of, load_rows
from keras_reid.data.sampling import pk_rows, pk_steps
from keras_reid.data.validation import readable
from keras_reid.errors import InputError, counted


def pk_clips(
    images: PersonImages,
    num_identities_per_batch: int = 8,
    num_instances: int = 2,
    frames: int = 4,
    image_size: tuple[int, int] = (256, 128),
    augment: str | Recipe = "default",
    seed: int = 0,
    first_epoch: int = 0,
    last: str = "fill",
    cache: Cache = None,
    camera_balanced: bool = False,
) -> tf.data.Dataset:
    """An endless stream of training batches: P identities with a clip of K tracklets each.

    A clip of a tracklet of n frames has one frame, drawn at random, of each of T equal stretches of
    it, in their order (Wang et al., TSN, ECCV 2016); of fewer than T frames it has all, and then
    goes round them again: each is augmented on its own, so that repeats differ and all of them can
    train. Batch i of epoch e is a function of (seed, e, i).

    Args:
        images: n training images with a column "tracklet"; unreadable ones are named and left out.
        num_identities_per_batch, num_instances: P and K; b = P·K.
        frames: T.
        image_size, augment, seed, first_epoch, last, cache, camera_balanced: as in `pk_batches`;
            each frame is augmented on its own.

    Returns:
        Elements ({"clips": uint8 (b, t, h, w, 3), "mask": bool (b, t), all true}, {"identity":
        int32 (b,), "camera": int32 (b,), "frame_identity": int32 (b·t,), of each frame}).

    Raises:
        InputError: as `pk_batches`, or images without tracklets, or frames below 1.
    """
    _check(images, frames)
    check_cameras(images, camera_balanced)
    change = recipe(augment)
    images = readable(images)
    rows_of = images.tracklet_rows
    sizes = np.array([len(rows) for rows in rows_of], np.int32)
    starts = (np.cumsum(sizes) - sizes).astype(np.int32)
    flat_rows = np.concatenate(rows_of).astype(np.int32)
    each = images.per_tracklet()
    steps = pk_steps(each, num_identities_per_batch, num_instances, last)
    columns = labels_of(each)
    count = num_identities_per_batch * num_instances

    def choose(step: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pair = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), step]), 0)
        drawn = tf.random.stateless_uniform([count, frames], pair)
        size = tf.gather(sizes, rows)[:, None]
        number = tf.range(frames)[None]
        stretch = (tf.cast(number, tf.float32) + drawn) * tf.cast(size, tf.float32) / frames
        own = tf.where(size >= frames, tf.minimum(tf.cast(stretch, tf.int32), size - 1), number)
        return rows, tf.gather(flat_rows, tf.gather(starts, rows)[:, None] + own % size)

    cameras = columns["camera"] if camera_balanced else None
    rows = pk_rows(
        columns["identity"],
        num_identities_per_batch,
        num_instances,
        seed,
        first_epoch,
        last,
        cameras,
    )
    chosen = rows.enumerate(first_epoch * steps).map(choose)
    load = load_rows(images, image_size, cache)
    pixels = load(chosen.map(lambda rows, flat: tf.reshape(flat, [-1])), count * frames)

    def finish(step: tf.Tensor, element: Any) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        (_, images), (rows, _) = element
        pair = tf.random.fold_in(tf.stack([tf.constant(seed, tf.int64), step]), 1)
        shape = (count * frames, *image_size, 3)
        changed = change(tf.ensure_shape(images, shape), pair)
        clips = tf.reshape(changed, (count, frames, *image_size, 3))
        labels = {name: tf.gather(column, rows) for name, column in columns.items()}
        labels["frame_identity"] = tf.repeat(labels["identity"], frames)
        return {"clips": clips, "mask": tf.ones((count, frames), tf.bool)}, labels

    both = tf.data.Dataset.zip((pixels, chosen)).enumerate(first_epoch * steps)
    augmented = both.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return check_augmented(augmented).prefetch(AHEAD)


def clip_batches(
    images: PersonImages,
    frames: int = 8,
    batch_size: int = 16,
    image_size: tuple[int, int] = (256, 128),
    cache: Cache = None,
) -> tf.data.Dataset:
    """All clips of all tracklets once, in order: T frames after T frames, the last one padded.

    Args:
        images: with a column "tracklet", readable.
        frames: T.
        batch_size: clips at a time; the last batch is short.
        image_size, cache: as in `image_batches`.

    Returns:
        Elements {"clips": uint8 (b, t, h, w, 3), "mask": bool (b, t)}; a tracklet of n frames has
        ⌈n/T⌉ clips, and repeats its last frame behind the mask.

    Raises:
        InputError: no tracklets, frames or batch_size below 1.
    """
    _check(images, frames)
    checks.at_least(1, batch_size=batch_size)

    def clips() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in images.tracklet_rows:
            for first in range(0, len(rows), frames):
                place = np.arange(first, first + frames)
                yield rows[np.minimum(place, len(rows) - 1)], place < len(rows)

    flat, mask = (np.stack(column) for column in zip(*clips(), strict=True))
    chosen = tf.data.Dataset.from_tensor_slices((flat, mask)).batch(batch_size)
    load = load_rows(images, image_size, cache)
    pixels = load(chosen.map(lambda flat, mask: tf.reshape(flat, [-1])), batch_size * frames)

    def finish(element: Any, chosen: Any) -> dict[str, tf.Tensor]:
        clips = tf.reshape(element[1], (-1, frames, *image_size, 3))
        return {"clips": clips, "mask": chosen[1]}

    return tf.data.Dataset.zip((pixels, chosen)).map(finish).prefetch(AHEAD)


def _check(images: PersonImages, frames: int) -> None:
    checks.at_least(1, frames=frames)
    if not images.has_tracklets or not len(images):
        raise InputError(
            f"clips are of tracklets: received {counted(len(images), 'image')} without them; see "
            "keras_reid.data.tracklets"
        )
