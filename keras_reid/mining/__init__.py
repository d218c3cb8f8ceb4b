"""Selection of comparisons in a distance matrix. Miners see no embeddings.

A miner is `(distances (n, m), positive (n, m), negative (n, m), read=None) -> Mined`. It selects
by weights over the matrix, or one column for each row. The number of indices never depends on the
data, so that shapes are static and XLA compiles it.

The selection has no gradient, the selected distances have. A miner of single entries reads them by
`read(rows, columns) -> distances`; None reads the matrix itself. With another reader of the loss,
one distance selects and another one is returned.
"""

from keras_reid import checks
from keras_reid.mining.miners import (
    all_triplets,
    batch_hard,
    batch_hard_of_every_anchor,
    batch_soft,
    margin_sample,
)
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
