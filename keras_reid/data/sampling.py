"""PK sampling in a tf.data graph: every batch holds P distinct identities with K images each.

In each epoch, the images of each identity are shuffled and divided into groups of K; images repeat
if the last group is short. The groups, ordered by shuffled identity, are distributed over the B
batches of the epoch: group `i` goes to batch `i mod B`. The groups of an identity are adjacent in
that order and at most B, so no batch contains an identity twice.

Images of several sources can have other numbers of groups, see `keras_reid.data.shares`. Then the
identities are ordered by source, so that all batches have nearly equal numbers of each source.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from keras_reid import checks
from keras_reid.data.images import SOURCE, PersonImages
from keras_reid.data.shares import ONE, Shares, shares_of, source_of_classes


@dataclass(frozen=True)
class EpochPlan:
    """Numbers of batches and groups in every epoch.

    Attributes:
        num_identities_per_batch: P.
        num_instances: K.
        batches: B.
        groups: (c,) number of groups of each identity; a group is K of its images.
        extra: number of identities with one more group, which fill the last batch. Each epoch draws
            these identities among those with fewer than B groups.
        shares: expected numbers of groups that replace `groups` and `extra`; None: none.
    """

    num_identities_per_batch: int
    num_instances: int
    batches: int
    groups: np.ndarray
    extra: int
    shares: Shares | None = None

    @property
    def batch_size(self) -> int:
        """Number of images in a batch, P·K."""
        return self.num_identities_per_batch * self.num_instances

    @property
    def blocks(self) -> tuple[int, ...]:
        """Numbers of batches that are filled one after the other, with the sum B."""
        return (self.batches,) if self.shares is None else self.shares.blocks


def plan_epoch(
    sizes: np.ndarray, num_identities_per_batch: int, num_instances: int, last: str = "fill"
) -> EpochPlan:
    """Return B and the number of groups of each identity, a group being K of its images.

    B batches of P distinct identities need `Σ min(groups, B) ≥ P·B`. With `fill`, B is the
    smallest number of batches that holds every group. Smaller identities repeat their images until
    the batches are full. With `drop`, B is the largest number of batches that the groups fill. Then
    fewer than P groups are left out of an epoch, or more if one identity has more than B groups. In
    each epoch, the images to leave out are drawn at random.

    Args:
        sizes: number of images of each identity, (c,).
        num_identities_per_batch: P, identities in a batch.
        num_instances: K, images of each identity in a batch.
        last: "fill" or "drop".

    Raises:
        InputError: P or K is not positive, P exceeds the number of identities, unknown `last`.
    """
    p = num_identities_per_batch
    checks.one_of(("fill", "drop"), last=last)
    checks.at_least(1, num_instances=num_instances)
    fix = "Images of more identities allow larger batches."
    checks.within(f"[1, {len(sizes)}]", fix, num_identities_per_batch=p)
    groups = -(-np.asarray(sizes, np.int64) // num_instances)
    if last == "drop":
        batches = bisect_right(
            range(1, int(groups.sum()) // p + 1),
            0,
            key=lambda b: p * b - int(np.minimum(groups, b).sum()),
        )
        return EpochPlan(p, num_instances, batches, np.minimum(groups, batches), 0)
    batches = max(-(-int(groups.sum()) // p), int(groups.max()))
    rounds = bisect_right(
        range(1, batches + 1),
        p * batches,
        key=lambda more: int(np.minimum(groups + more, batches).sum()),
    )
    groups = np.minimum(groups + rounds, batches)
    return EpochPlan(p, num_instances, batches, groups, p * batches - int(groups.sum()))


def plan_of(
    images: PersonImages,
    num_identities_per_batch: int,
    num_instances: int,
    last: str = "fill",
    source_sampling: str = "proportional",
    source_batches: str = "mixed",
) -> EpochPlan:
    """Return `plan_epoch` for images, with the shares of their sources.

    Raises:
        InputError: see `plan_epoch` and `shares_of`; images without a column "source" for other
            values than "proportional" and "mixed".
    """
    sizes = np.bincount(classes := classes_of(images, num_instances))
    plan = plan_epoch(sizes, num_identities_per_batch, num_instances, last)
    if (source_sampling, source_batches) == ("proportional", "mixed"):
        return plan
    source = source_of_classes(images, classes, source_sampling, source_batches)
    groups, size = -(-sizes // num_instances), (num_identities_per_batch, plan.batches)
    shares = shares_of(groups, source, size, source_sampling, source_batches)
    return replace(plan, shares=shares)


def classes_of(images: PersonImages, num_instances: int) -> np.ndarray:
    """Return `sampling_classes` of images."""
    return sampling_classes(images.classes()[1], num_instances, images.columns.get(SOURCE))


def sampling_classes(
    index: np.ndarray, num_instances: int, source: np.ndarray | None = None
) -> np.ndarray:
    """Return the classes (n,), 0 to c − 1, that batches are drawn from.

    Unlabeled images are distributed at random over classes of `num_instances` images of one source.

    Args:
        index: (n,) class indices; negative for unlabeled images.
        num_instances: K.
        source: (n,) source of each image; None: one source.

    Example:
        >>> sampling_classes(np.array([0, 0, -3, -4, -5]), 2).tolist()
        [0, 0, 1, 2, 1]
    """
    classes = np.array(index, np.int64)
    unlabeled = np.random.default_rng(0).permutation(np.flatnonzero(index < 0))
    own = np.zeros(len(unlabeled)) if source is None else source[unlabeled]
    for rows in (unlabeled[own == name] for name in np.unique(own)):
        classes[rows] = classes.max() + 1 + np.arange(len(rows)) // num_instances
    return np.unique(classes, return_inverse=True)[1]


def pk_steps(
    images: PersonImages,
    num_identities_per_batch: int = 16,
    num_instances: int = 4,
    last: str = "fill",
    source_sampling: str = "proportional",
    source_batches: str = "mixed",
) -> int:
    """Return the number of batches in every epoch of `pk_batches` with the same arguments.

    Args:
        images: n training images; for `pk_clips`, pass `images.per_tracklet()`.
        num_identities_per_batch: P.
        num_instances: K.
        last: "fill" or "drop".
        source_sampling: see `pk_batches`.
        source_batches: see `pk_batches`.

    Raises:
        InputError: see `plan_of`.

    Example:
        >>> paths = [f"{i}.jpg" for i in range(320)]
        >>> images = PersonImages(paths, np.repeat(np.arange(40), 8), None)
        >>> pk_steps(images, num_identities_per_batch=16, num_instances=4)
        5
    """
    groups = (num_identities_per_batch, num_instances, last)
    return plan_of(images, *groups, source_sampling, source_batches).batches


def pk_rows(
    classes: np.ndarray,
    plan: EpochPlan,
    seed: int = 0,
    first_epoch: int = 0,
    cameras: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Return an endless stream of batches of row numbers, `(P·K,)` int32, grouped by identity.

    Epoch e is a function of (seed, e), so `first_epoch=n` equals skipping n epochs. All images of
    an identity appear before any of them appears again, except that identities with fewer than K
    images repeat them within a group. A `tf.train.Checkpoint` can save the iterator.

    Args:
        classes: class index of each row, (n,); every index in 0..c-1 occurs.
        plan: result of `plan_epoch` for the sizes of the classes.
        seed: any int64.
        first_epoch: first epoch of the stream.
        cameras: see `epoch_rows`.
    """

    def batches(epoch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(epoch_rows(classes, plan, seed, epoch, cameras))

    return tf.data.Dataset.counter(first_epoch).flat_map(batches)


def epoch_rows(
    classes: np.ndarray,
    plan: EpochPlan,
    seed: int,
    epoch: tf.Tensor | int,
    cameras: np.ndarray | None = None,
) -> tf.Tensor:
    """Return the rows of one epoch, (B, P·K) int32; 0.1 s for 100,000 images of 10,000 identities.

    Args:
        classes: class index of each row, (n,).
        plan: result of `plan_epoch` for the sizes of the classes.
        seed: seed of all random choices.
        epoch: number of the epoch, which changes all random choices.
        cameras: index of the camera of each row, (n,). The images of each camera are spread evenly
            over the order of an identity, so that K consecutive images show as many cameras as
            possible. None: random order.
    """
    sizes = np.bincount(classes)
    pair = tf.stack([tf.cast(seed, tf.int64), tf.cast(epoch, tf.int64)])
    seeds = tf.random.split(pair, 4)
    # A class index plus a fraction sorts by class and shuffles within it. The fraction stays below
    # one half, so rounding does not reach the next class.
    fraction = tf.random.stateless_uniform([len(classes)], seeds[0], dtype=tf.float64) / 2
    if cameras is not None:
        fraction = _spread(classes, cameras, fraction)
    shuffled = tf.argsort(tf.cast(classes, tf.float64) + fraction)
    first = tf.constant(np.cumsum(sizes) - sizes, tf.int32)

    rank_class, rank, nth = _groups(seeds[1], plan)
    batch_of = _columns(seeds[2], rank, plan.blocks)
    owner = tf.gather(tf.gather(rank_class, rank), batch_of, batch_dims=1)
    nth = tf.gather(nth, batch_of, batch_dims=1)
    slot = nth[..., None] * plan.num_instances + tf.range(plan.num_instances)
    slot = slot % tf.gather(tf.constant(sizes, tf.int32), owner)[..., None]
    rows = tf.gather(shuffled, tf.gather(first, owner)[..., None] + slot)

    order = tf.argsort(tf.random.stateless_uniform([plan.batches], seeds[3]))
    rows = tf.gather(tf.transpose(rows, [1, 0, 2]), order)
    return tf.reshape(rows, [plan.batches, plan.batch_size])


def _spread(classes: np.ndarray, cameras: np.ndarray, drawn: tf.Tensor) -> tf.Tensor:
    """Return sort keys in [0, ½) that spread each camera evenly over the images of an identity.

    The n images of an identity in a camera get one random key in each n-th of the range. `drawn`,
    random numbers in [0, ½), selects order and keys.
    """
    _, cell, counts = np.unique(
        np.stack([classes, cameras]), axis=1, return_inverse=True, return_counts=True
    )
    cell = cell.reshape(-1)
    order = tf.argsort(tf.constant(cell, tf.float64) + drawn)
    rank = tf.argsort(order) - tf.constant((np.cumsum(counts) - counts)[cell], tf.int32)
    return (tf.cast(rank, tf.float64) / 2 + drawn) / counts[cell].astype(np.float64)


def _groups(seed: tf.Tensor, plan: EpochPlan) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return identities by rank (c,), and the rank and number of each group (P, B), by round."""
    shuffled, end = _ends(seed, plan)
    # With `drop` up to P−1 groups, or those of a dominant identity, exceed whole rounds: cut.
    card = tf.range(plan.num_identities_per_batch * plan.batches)
    rank = tf.searchsorted(end, card, side="right")
    nth = card - tf.gather(tf.concat([[0], end[:-1]], 0), rank)
    return shuffled, _grid(rank, plan), _grid(nth, plan)


def _ends(seed: tf.Tensor, plan: EpochPlan) -> tuple[tf.Tensor, tf.Tensor]:
    """Return identities by rank (c,), and the cumulative numbers of their groups (c,)."""
    free = tf.random.stateless_uniform([len(plan.groups)], seed)
    if plan.shares is None:
        shuffled = tf.argsort(free)
        count = tf.gather(tf.constant(plan.groups, tf.int32), shuffled)
        room = tf.cast(count < plan.batches, tf.int32)
        return shuffled, tf.cumsum(count + room * tf.cast(tf.cumsum(room) <= plan.extra, tf.int32))
    # Systematic sampling: shares are rounded up or down at random, with exact sums by source.
    shuffled = tf.argsort(tf.cast(plan.shares.source, tf.float64) + tf.cast(free, tf.float64) / 2)
    start = tf.random.stateless_uniform([], tf.random.fold_in(seed, 1), maxval=ONE, dtype=tf.int64)
    end = tf.cumsum(tf.gather(tf.constant(plan.shares.share, tf.int64), shuffled))
    return shuffled, tf.cast((start + end) // ONE, tf.int32)


def _grid(cards: tf.Tensor, plan: EpochPlan) -> tf.Tensor:
    """Return (P·B,) as (P, B), block by block."""
    p = plan.num_identities_per_batch
    parts = tf.split(cards, [p * block for block in plan.blocks])
    return tf.concat([tf.reshape(part, [p, -1]) for part in parts], 1)


def _columns(seed: tf.Tensor, rank: tf.Tensor, blocks: tuple[int, ...]) -> tf.Tensor:
    """Return a permutation of each round (P, B), which varies the identities of a batch.

    An identity with groups in two rounds keeps its places at the end of one and at the start of the
    next, which are in different batches. The other places of a block are permuted.
    """
    no_rank = tf.constant([-1], rank.dtype)
    free = tf.random.stateless_uniform(tf.shape(rank), seed)
    orders, first = [], 0
    for own, drawn in zip(tf.split(rank, blocks, 1), tf.split(free, blocks, 1), strict=True):
        before = tf.concat([no_rank, own[:-1, -1]], 0)[:, None]
        after = tf.concat([own[1:, 0], no_rank], 0)[:, None]
        key = tf.where(own == before, -1.0, tf.where(own == after, 1.0, drawn))
        orders.append(first + tf.argsort(key, stable=True))
        first += own.shape[1]
    return tf.concat(orders, 1)
