"""Selection of comparisons in a distance matrix. Miners see no embeddings.

A miner is `(distances (n, m), positive (n, m), negative (n, m), read=None) -> Mined`. It selects
by weights over the matrix, or one column for each row. The number of indices never depends on the
data, so that shapes are static and XLA compiles it.

The selection has no gradient, the selected distances have. A miner of single entries reads them by
`read(rows, columns) -> distances`; None reads the matrix itself. With another reader of the loss,
one distance selects and another one is returned.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_reid import checks
from keras_reid.distances import MASKED

Tensor = Any


class Mined(NamedTuple):
    """Comparisons: d⁺, d⁻ and the mask of existing ones, each `(n, …)`, anchors first."""

    positive: Tensor
    negative: Tensor
    valid: Tensor


# Entry (rows[i], columns[i]) for each i; None: every row in order.
Reader = Callable[[Tensor | None, Tensor], Tensor]
Miner = Callable[..., Mined]

# Losses with one of the miners can then be saved.
_registered = keras.saving.register_keras_serializable(package="keras_reid")


def entries(distances: Tensor) -> Reader:
    """Return the reader `distances[rows, columns]`, for `columns` `(n,)` or `(n, k)`."""

    def read(rows: Tensor | None, columns: Tensor) -> Tensor:
        if rows is None:
            rows = ops.arange(ops.shape(distances)[0], dtype=columns.dtype)
        if len(columns.shape) == 2:
            rows = rows[:, None]
        width = ops.cast(ops.shape(distances)[1], columns.dtype)
        return ops.take(ops.reshape(distances, (-1,)), rows * width + columns)

    return read


def farthest(distances: Tensor, mask: Tensor) -> Tensor:
    """Return the column of the largest distance in the mask, for each row; the first of equals."""
    distances = ops.where(mask, distances, -MASKED)
    return _first(distances >= ops.max(distances, axis=-1, keepdims=True))


def nearest(distances: Tensor, mask: Tensor) -> Tensor:
    """Return the column of the smallest distance in the mask, for each row; the first of equals."""
    distances = ops.where(mask, distances, MASKED)
    return _first(distances <= ops.min(distances, axis=-1, keepdims=True))


def nearest_pair(distances: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column, each `(1,)`, of the smallest distance in the mask."""
    distances = ops.where(mask, distances, MASKED)
    of_rows = ops.min(distances, axis=-1)
    columns = _first(distances <= of_rows[:, None])
    row = _first((of_rows <= ops.min(of_rows))[None, :])
    return row, ops.take(columns, row)


def _first(mask: Tensor) -> Tensor:
    """Return the first column in the mask, for each row; the last one if it is empty (NaN)."""
    # On a CPU, an argmin of the distances takes 1.5 times as long as a minimum and this.
    last = ops.shape(mask)[-1] - 1
    return ops.min(ops.where(mask, ops.arange(last + 1, dtype="int32")[None, :], last), axis=-1)


def softest(distances: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Softmax of `distances / temperature` in the mask, 0 elsewhere and where the mask is empty."""
    # Subtract before dividing, from one `where`: XLA fuses a product and a subtraction and rounds
    # differently. Exponents of large distances could then be far above 0.
    chosen = ops.where(mask, distances, -MASKED)
    largest = ops.stop_gradient(ops.max(chosen, axis=-1, keepdims=True))
    weights = ops.where(mask, ops.exp((chosen - largest) / temperature), 0)
    total = ops.sum(weights, axis=-1, keepdims=True)
    return weights / ops.where(total <= 0, ops.ones_like(total), total)


def exists(positive: Tensor, negative: Tensor) -> Tensor:
    """Return the mask of the rows with a positive and a negative."""
    return ops.logical_and(ops.any(positive, axis=-1), ops.any(negative, axis=-1))


@_registered
def batch_hard(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """For each anchor the farthest positive and the nearest negative (arXiv:1703.07737)."""
    choice = ops.stop_gradient(distances)
    read = read or entries(distances)
    return Mined(
        read(None, farthest(choice, positive)),
        read(None, nearest(choice, negative)),
        exists(positive, negative),
    )


@_registered
def margin_sample(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """The farthest positive pair and the nearest negative pair of the batch (arXiv:1710.00478).

    One comparison, which is that of every anchor.
    """
    choice = ops.stop_gradient(distances)
    read = read or entries(distances)
    anchors = ops.shape(distances)[:1]
    return Mined(
        ops.broadcast_to(read(*nearest_pair(-choice, positive)), anchors),
        ops.broadcast_to(read(*nearest_pair(choice, negative)), anchors),
        ops.broadcast_to(ops.logical_and(ops.any(positive), ops.any(negative)), anchors),
    )


@_registered
class batch_soft:
    """For each anchor `d⁺ = Σ softmax_P(d/t) d` and `d⁻ = Σ softmax_N(−d/t) d`.

    The adaptive weights of Ristani & Tomasi (CVPR 2018, arXiv:1803.10859). `t → 0` is batch-hard,
    `t → ∞` the mean.

    Args:
        temperature: t, in units of the distance.
        stop_gradient_weights: the weights are constants. Otherwise a positive nearer than
            `d⁺ − t` is pushed away and a negative farther than `d⁻ + t` is pulled in.
    """

    def __init__(self, temperature: float = 1.0, stop_gradient_weights: bool = True) -> None:
        self.temperature = temperature
        self.stop_gradient_weights = stop_gradient_weights

    def __call__(
        self, distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
    ) -> Mined:
        return Mined(
            self._mean(distances, positive, 1),
            self._mean(distances, negative, -1),
            exists(positive, negative),
        )

    def _mean(self, distances: Tensor, mask: Tensor, sign: int) -> Tensor:
        weights = softest(sign * distances, mask, self.temperature)
        weights = ops.stop_gradient(weights) if self.stop_gradient_weights else weights
        return ops.sum(weights * distances, axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "stop_gradient_weights": self.stop_gradient_weights,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "batch_soft":
        return cls(**config)


@_registered
def semi_hard(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """For each (anchor, positive) the nearest negative beyond it, or else the farthest negative.

    FaceNet (Schroff et al., CVPR 2015, arXiv:1503.03832). Time O(k · n²) for at most k positives
    of an anchor, memory O(n²).
    """
    return Mined(
        distances,
        _beyond(distances, positive, negative),
        ops.logical_and(positive, ops.any(negative, axis=-1, keepdims=True)),
    )


def _beyond(distances: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """d⁻ `(n, m)` of `semi_hard` where `positive`, 0 elsewhere.

    Its gradient goes through the positives of the anchors again, which are few: that of reading an
    entry for each pair would add up n m numbers.
    """
    size = ops.shape(distances)[1]
    index = ops.arange(size, dtype="int32")[None, :]

    def at(matrix: Tensor, column: Tensor) -> Tensor:
        return entries(matrix)(None, ops.minimum(column, size - 1))

    def over_positives(work: Callable[[Tensor], Tensor]) -> Tensor:
        """`Σ work(column)` `(n, m)` over the columns `(n, 1)` of positives; `size`: no positive."""

        def following(column: Tensor) -> Tensor:
            later = ops.logical_and(positive, index > column)
            return ops.min(ops.where(later, index, size), axis=-1, keepdims=True)

        return ops.while_loop(
            lambda column, _: ops.any(column < size),
            lambda column, total: (following(column), total + work(column)),
            (
                following(ops.zeros_like(positive[:, :1], dtype=index.dtype) - 1),
                ops.zeros(ops.shape(positive), distances.dtype),
            ),
        )[1]

    @ops.custom_gradient
    def beyond(distances: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
        negatives = ops.where(negative, distances, -MASKED)
        farthest = ops.max(negatives, axis=-1, keepdims=True)

        def nearest_beyond(column: Tensor) -> Tensor:
            farther = ops.where(negatives > at(distances, column), negatives, MASKED)
            smallest = ops.min(farther, axis=-1, keepdims=True)
            return ops.where(index == column, ops.where(smallest < MASKED, smallest, farthest), 0)

        smallest_beyond = over_positives(nearest_beyond)

        def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
            received = arguments[0] if upstream is None else upstream

            def back(column: Tensor) -> Tensor:
                chosen = _first(negatives == at(smallest_beyond, column))[:, None]
                own = ops.logical_and(index == chosen, column < size)
                return ops.where(own, at(received, column), 0)

            return over_positives(back)

        return smallest_beyond, gradient

    return beyond(distances)


@_registered
def batch_hard_of_every_anchor(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """`batch_hard` with every anchor, as in TensorFlow Addons and triplet-reid.

    Without positives d⁺ is 0, without negatives d⁻ is d⁺.
    """
    mined = batch_hard(distances, positive, negative, read)
    hard_positive = ops.where(ops.any(positive, axis=-1), mined.positive, 0)
    hard_negative = ops.where(ops.any(negative, axis=-1), mined.negative, hard_positive)
    return Mined(hard_positive, hard_negative, ops.ones_like(mined.valid))


@_registered
def semi_hard_of_every_anchor(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """`semi_hard` with every positive, as in TensorFlow Addons: without negatives d⁻ is 0."""
    mined = semi_hard(distances, positive, negative, read)
    semi_hard_negative = ops.where(ops.any(negative, axis=-1, keepdims=True), mined.negative, 0)
    return Mined(mined.positive, semi_hard_negative, positive)


@_registered
def all_triplets(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """Every (anchor, positive, negative): `(n, m, 1)`, `(n, 1, m)` and their mask `(n, m, m)`."""
    valid = ops.logical_and(positive[:, :, None], negative[:, None, :])
    return Mined(distances[:, :, None], distances[:, None, :], valid)


MINERS: dict[str, Miner] = {
    "batch_all": all_triplets,
    "batch_hard": batch_hard,
    "batch_soft": batch_soft(),
    "semi_hard": semi_hard,
    "margin_sample": margin_sample,
}


# Miners of single entries: nothing else has a gradient.
SPARSE = (batch_hard, batch_hard_of_every_anchor, margin_sample)


def get(miner: str | Miner) -> Miner:
    """Look up a miner by name; return a function unchanged.

    Raises:
        InputError: if the name is unknown.
    """
    if callable(miner):
        return miner
    checks.one_of(MINERS, "A function is allowed, too.", miner=miner)
    return MINERS[miner]
