"""Selection of comparisons in a distance matrix. Miners see no embeddings.

A miner is `(distances (n, m), positive (n, m), negative (n, m), read=None) -> Mined`. It selects
by weights over the matrix, or one column for each row. The number of indices never depends on the
data, so that shapes are static and XLA compiles it.

The selection has no gradient; the selected distances have one. A miner of single entries reads the
selected distances with `read(rows, columns) -> distances`; None reads the matrix itself. A loss
with its own reader selects by one distance and returns another one.
"""

from typing import Any

from keras import ops

from keras_reid import checks
from keras_reid.distances.points import registered
from keras_reid.mining.selection import (
    Mined,
    Miner,
    Reader,
    entries,
    exists,
    farthest,
    nearest,
    nearest_pair,
    softest,
)
from keras_reid.mining.semihard import semi_hard, semi_hard_of_every_anchor

Tensor = Any


@registered
def batch_hard(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """Return for each anchor the farthest positive and the nearest negative (arXiv:1703.07737).

    Args:
        distances: matrix `(n, m)`.
        positive: mask `(n, m)` of the pairs of one identity.
        negative: mask `(n, m)` of the pairs of different identities.
        read: function that returns distances at rows and columns; None reads `distances`.

    Returns:
        Comparisons `(n,)`, one for each anchor.

    Example:
        >>> import numpy as np
        >>> row = np.array([[1.0, 3.0, 2.0, 6.0]])  # two positives, two negatives.
        >>> positive = np.array([[True, True, False, False]])
        >>> mined = batch_hard(row, positive, ~positive)
        >>> float(mined.positive[0]), float(mined.negative[0])
        (3.0, 2.0)
    """
    choice = ops.stop_gradient(distances)
    read = read or entries(distances)
    return Mined(
        read(None, farthest(choice, positive)),
        read(None, nearest(choice, negative)),
        exists(positive, negative),
    )


@registered
def batch_hard_of_every_anchor(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """`batch_hard` with every anchor, as in TensorFlow Addons and triplet-reid.

    d⁺ is 0 if there is no positive, and d⁻ is d⁺ if there is no negative.

    Args:
        distances: matrix `(n, m)`.
        positive: mask `(n, m)` of the pairs of one identity.
        negative: mask `(n, m)` of the pairs of different identities.
        read: function that returns distances at rows and columns; None reads `distances`.

    Returns:
        Comparisons `(n,)`, one for each anchor, all valid.

    Example:
        >>> import numpy as np
        >>> row, positive = np.array([[1.0, 3.0]]), np.array([[True, True]])
        >>> mined = batch_hard_of_every_anchor(row, positive, ~positive)
        >>> float(mined.positive[0]), float(mined.negative[0]), bool(mined.valid[0])
        (3.0, 3.0, True)
    """
    mined = batch_hard(distances, positive, negative, read)
    hard_positive = ops.where(ops.any(positive, axis=-1), mined.positive, 0)
    hard_negative = ops.where(ops.any(negative, axis=-1), mined.negative, hard_positive)
    return Mined(hard_positive, hard_negative, ops.ones_like(mined.valid))


@registered
def margin_sample(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """Return the farthest positive and the nearest negative pair of the batch (arXiv:1710.00478).

    It is one comparison, which all anchors share.

    Args:
        distances: matrix `(n, m)`.
        positive: mask `(n, m)` of the pairs of one identity.
        negative: mask `(n, m)` of the pairs of different identities.
        read: function that returns distances at rows and columns; None reads `distances`.

    Returns:
        Comparisons `(n,)`, all equal.

    Example:
        >>> import numpy as np
        >>> rows = np.array([[1.0, 5.0, 2.0], [4.0, 3.0, 7.0]])
        >>> positive = np.array([[True, True, False], [True, False, False]])
        >>> mined = margin_sample(rows, positive, ~positive)
        >>> print(np.array(mined.positive), np.array(mined.negative))
        [5. 5.] [2. 2.]
    """
    choice = ops.stop_gradient(distances)
    read = read or entries(distances)
    anchors = ops.shape(distances)[:1]
    return Mined(
        ops.broadcast_to(read(*nearest_pair(-choice, positive)), anchors),
        ops.broadcast_to(read(*nearest_pair(choice, negative)), anchors),
        ops.broadcast_to(ops.logical_and(ops.any(positive), ops.any(negative)), anchors),
    )


@registered
class batch_soft:
    """Softmax means of each anchor: `d⁺ = Σ softmax_P(d/t) d` and `d⁻ = Σ softmax_N(−d/t) d`.

    The adaptive weights of Ristani & Tomasi (CVPR 2018, arXiv:1803.10859). `t → 0` is batch-hard,
    `t → ∞` the mean.

    Args:
        temperature: t, in units of the distance.
        stop_gradient_weights: the weights are constants. Otherwise a positive nearer than
            `d⁺ − t` is pushed away and a negative farther than `d⁻ + t` is pulled in.

    Example:
        >>> import numpy as np
        >>> row = np.array([[1.0, 3.0, 2.0, 6.0]])  # two positives, two negatives.
        >>> positive = np.array([[True, True, False, False]])
        >>> mined = batch_soft(temperature=1.0)(row, positive, ~positive)
        >>> print(np.round(mined.positive, 2), np.round(mined.negative, 2))  # near 3 and 2
        [2.76] [2.07]
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
        """Return the arguments, which Keras saves with a loss."""
        return {
            "temperature": self.temperature,
            "stop_gradient_weights": self.stop_gradient_weights,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "batch_soft":
        """Return the miner with the arguments of `get_config`."""
        return cls(**config)


@registered
def all_triplets(
    distances: Tensor, positive: Tensor, negative: Tensor, read: Reader | None = None
) -> Mined:
    """Return every triplet (anchor, positive, negative).

    Args:
        distances: matrix `(n, m)`.
        positive: mask `(n, m)` of the pairs of one identity.
        negative: mask `(n, m)` of the pairs of different identities.
        read: not used, because every entry has a gradient.

    Returns:
        d⁺ `(n, m, 1)`, d⁻ `(n, 1, m)` and their mask `(n, m, m)`.

    Example:
        >>> import numpy as np
        >>> row = np.array([[1.0, 3.0, 2.0, 6.0]])  # two positives, two negatives.
        >>> positive = np.array([[True, True, False, False]])
        >>> mined = all_triplets(row, positive, ~positive)
        >>> tuple(mined.valid.shape), int(np.sum(mined.valid))
        ((1, 4, 4), 4)
    """
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

    Args:
        miner: key of `MINERS`, or a miner.

    Raises:
        InputError: if the name is unknown.

    Example:
        >>> from keras_reid import mining
        >>> mining.get("batch_hard") is mining.batch_hard
        True
    """
    if callable(miner):
        return miner
    checks.one_of(MINERS, "A function is allowed, too.", miner=miner)
    return MINERS[miner]


__all__ = [
    "MINERS",
    "SPARSE",
    "Mined",
    "Miner",
    "Reader",
    "all_triplets",
    "batch_hard",
    "batch_hard_of_every_anchor",
    "batch_soft",
    "entries",
    "exists",
    "farthest",
    "get",
    "margin_sample",
    "nearest",
    "nearest_pair",
    "semi_hard",
    "semi_hard_of_every_anchor",
    "softest",
]
