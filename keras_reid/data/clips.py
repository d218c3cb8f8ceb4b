"""Batches of clips: frames of a tracklet, padded to one length, with a mask."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.data.augment import Augmentation, augmentation
from keras_reid.data.cache import Cache, load_rows
from keras_reid.data.images import PersonImages
from keras_reid.data.pipeline import AHEAD, mapped, pk_stream, step_seed
from keras_reid.data.validation import readable
from keras_reid.errors import invalid


# The options of a stream are arguments, as in tf.data and Keras.
def pk_clips(
    images: PersonImages,
    num_identities_per_batch: int = 8,
    num_instances: int = 2,
    frames: int = 4,
    image_size: tuple[int, int] = (256, 128),
    augment: str | Augmentation = "default",
    seed: int = 0,
    first_epoch: int = 0,
    last: str = "fill",
    cache: Cache = None,
    camera_balanced: bool = False,
    source_sampling: str = "proportional",
    source_batches: str = "mixed",
) -> tf.data.Dataset:
    """Return an endless stream of training batches of P identities and K clips of each identity.

    The K clips are of K tracklets of the identity, if it has as many.

    A clip has T frames in their order: a random one of each of T equal segments of the tracklet
    (Wang et al., TSN, ECCV 2016). A tracklet of fewer frames gives all of them, repeated from the
    first; each repeat has its own augmentation. Batch i of epoch e is a function of (seed, e, i).

    Args:
        images: n training images with a column "tracklet"; unreadable ones are named and left out.
        num_identities_per_batch: P, identities in a batch.
        num_instances: K, tracklets of each identity; b = P·K.
        frames: T, frames of a clip.
        image_size: (h, w) in pixels.
        augment: see `pk_batches`; each frame is augmented independently.
        seed: seed of the sampling and of the augmentation.
        first_epoch: first epoch of the stream.
        last: "fill" or "drop", see `sampling.plan_epoch`.
        cache: None, "memory" or a folder, see `pk_batches`.
        camera_balanced: choose the tracklets of an identity from as many cameras as possible.
        source_sampling: see `pk_batches`.
        source_batches: see `pk_batches`.

    Returns:
        Elements ({"clips": uint8 (b, t, h, w, 3), "mask": bool (b, t), all true}, {"identity":
        int32 (b,), "camera": int32 (b,), "frame_identity": int32 (b·t,), of each frame}).

    Raises:
        InputError: see `pk_batches`; images without tracklets; frames below 1.
    """
    _check(images, frames)
    if camera_balanced:
        images.require_cameras("Leave camera_balanced out.")
    change = augmentation(augment)
    images = readable(images)
    groups = (num_identities_per_batch, num_instances, last, source_sampling, source_batches)
    each = images.per_tracklet()
    labels, plan, tracklets = pk_stream(each, groups, seed, first_epoch, camera_balanced)
    shape = (plan.batch_size, frames, *image_size, 3)
    first_step = first_epoch * plan.batches
    clips = tracklets.enumerate(first_step).map(_clips(images, shape[:2], seed))
    load = load_rows(images, image_size, cache)
    pixels = load(clips.map(lambda tracklets, rows: tf.reshape(rows, [-1])), shape[0] * frames)

    def finish(step: tf.Tensor, element: Any) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        (_, pixels), (tracklets, _) = element
        pixels = tf.ensure_shape(pixels, (shape[0] * frames, *image_size, 3))
        changed = tf.reshape(change(pixels, step_seed(seed, step, 1)), shape)
        batch = {name: tf.gather(column, tracklets) for name, column in labels.items()}
        batch["frame_identity"] = tf.repeat(batch["identity"], frames)
        return {"clips": changed, "mask": tf.ones(shape[:2], tf.bool)}, batch

    return mapped(tf.data.Dataset.zip((pixels, clips)).enumerate(first_step), finish)


def _clips(
    images: PersonImages, shape: tuple[int, int], seed: int
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Return a function of a step and tracklets (b,): the tracklets, and rows (b, t) of a clip."""
    tracklet_rows = images.tracklet_rows
    sizes = np.array([len(rows) for rows in tracklet_rows], np.int32)
    starts = (np.cumsum(sizes) - sizes).astype(np.int32)
    flat_rows = np.concatenate(tracklet_rows).astype(np.int32)
    frames = shape[1]

    def choose(step: tf.Tensor, tracklets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        drawn = tf.random.stateless_uniform(shape, step_seed(seed, step, 0))
        size = tf.gather(sizes, tracklets)[:, None]
        number = tf.range(frames)[None]
        segment = (tf.cast(number, tf.float32) + drawn) * tf.cast(size, tf.float32) / frames
        own = tf.where(size >= frames, tf.minimum(tf.cast(segment, tf.int32), size - 1), number)
        return tracklets, tf.gather(flat_rows, tf.gather(starts, tracklets)[:, None] + own % size)

    return choose


def clip_batches(
    images: PersonImages,
    frames: int = 8,
    batch_size: int = 16,
    image_size: tuple[int, int] = (256, 128),
    cache: Cache = None,
) -> tf.data.Dataset:
    """Return all clips of all tracklets once, in order; each has T frames, the last one is padded.

    Args:
        images: with a column "tracklet", readable.
        frames: T.
        batch_size: b; the last batch may be smaller.
        image_size: (h, w) in pixels.
        cache: None, "memory" or a folder, see `pk_batches`.

    Returns:
        Elements {"clips": uint8 (b, t, h, w, 3), "mask": bool (b, t)}; a tracklet of n frames has
        ⌈n/T⌉ clips. The mask excludes the padding, which repeats the last frame.

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
    checks.at_least(1, "Check the split.", images=len(images))
    checks.at_least(1, frames=frames)
    if not images.has_tracklets:
        raise invalid("images", "images of tracklets", images, "See keras_reid.data.tracklets.")
