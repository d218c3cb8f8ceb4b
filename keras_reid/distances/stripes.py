"""Distances between images with aligned stripes: `(n, s, d) × (m, t, d) → (n, m)`."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

from keras import ops

from keras_reid import checks
from keras_reid.distances.points import ONE_MODEL, euclidean, registered
from keras_reid.distances.rows import at_least_float32, root, squared_paired

Tensor = Any
Cell = tuple[int, int]


@registered
def aligned(x: Tensor, y: Tensor | None = None, return_path: bool = False) -> Any:
    """`S_st`: the shortest path through `d_ij = tanh(|f_i − g_j| / 2)`, f and g stripes of images.

        S_ij = d_ij + min(S_(i−1)j, S_i(j−1))

    The path goes from the top stripes of both images to the bottom stripes by steps down or right.
    A stripe is compared with a higher or lower one if the boxes were cut differently (Zhang et al.,
    AlignedReID, 2017, arXiv:1711.08184). The path has s + t − 1 cells, and each cell costs less
    than 1. The distance is not a metric: the steps between different stripes of one image cost more
    than 0, so that the diagonal of `aligned(x)` is not 0. If two paths are equally short, one of
    them gets the gradient.

    Args:
        x: stripes `(n, s, d)`, from top to bottom; s must be static.
        y: stripes `(m, t, d)`; None compares the images of `x` with each other.
        return_path: return the paths, too, for figures.

    Returns:
        `(n, m)` in [0, s + t − 1), or the tuple of this and of booleans `(n, m, s, t)`, true on
        the path.

    Raises:
        InputError: if an argument is not `(images, stripes, features)` or the widths differ.

    Example:
        >>> import numpy as np
        >>> person = np.array([[[0.0], [50.0], [100.0]]])  # head, body, legs
        >>> lower, other = [[0.0], [0.0], [50.0]], [[200.0], [250.0], [300.0]]
        >>> print(np.array(aligned(person, np.array([lower, other]))))
        [[2. 5.]]
    """
    x = _images(x)
    if y is None:
        y, apart = x, euclidean(stripes_first(x))
    else:
        y = _images(y)
        checks.shapes(ONE_MODEL, x=("(n, s, d)", x.shape), y=("(m, t, d)", y.shape))
        apart = euclidean(stripes_first(x), stripes_first(y))
    sides = (x.shape[1], ops.shape(x)[0], y.shape[1], ops.shape(y)[0])
    cells = saturated(ops.reshape(apart, sides))
    if not return_path:
        return shortest_path(cells)
    total, from_above = _shortest(cells)
    path = _walk_back(from_above, ops.ones_like(total), cells)
    return total, ops.transpose(path, (1, 3, 0, 2)) > 0


def aligned_paired(x: Tensor, y: Tensor) -> Tensor:
    """`aligned` of one image with one, from exact differences.

    Args:
        x: stripes `(b, s, d)`, from top to bottom; s must be static.
        y: stripes `(b, t, d)`.

    Returns:
        `(b,)` in [0, s + t − 1).

    Raises:
        InputError: if an argument is not `(images, stripes, features)` or the widths differ.

    Example:
        >>> import numpy as np
        >>> person, lower = np.array([[[0.0], [50.0]]]), np.array([[[0.0], [0.0]]])
        >>> print(np.array(aligned_paired(person, lower)))
        [1.]
    """
    x, y = _images(x), _images(y)
    checks.shapes(ONE_MODEL, x=("(b, s, d)", x.shape), y=("(b, t, d)", y.shape))
    cells = saturated(root(squared_paired(x[:, :, None], y[:, None])))
    return shortest_path(ops.transpose(cells, (1, 0, 2))[..., None])[:, 0]


@ops.custom_gradient
def saturated(x: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
    """`tanh(x/2) = (e^x − 1)/(e^x + 1)`, which for large x does not overflow."""

    def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
        received = arguments[0] if upstream is None else upstream
        # (1 − tanh²)/2 cancels where tanh is near 1.
        decayed = ops.exp(-x)
        return received * 2 * decayed / ((1 + decayed) * (1 + decayed))

    return ops.tanh(x / 2), gradient


@ops.custom_gradient
def shortest_path(cells: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
    """`S_st` `(n, m)` of the cells `d_ij` `(s, n, t, m)`.

    The gradient of a path is 1 in each of its cells. Walking back along the path takes a quarter
    of the time of differentiating every minimum.
    """
    total, from_above = _shortest(cells)

    def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
        received = arguments[0] if upstream is None else upstream
        return _walk_back(from_above, received, cells)

    return total, gradient


def _shortest(cells: Tensor) -> tuple[Tensor, dict[Cell, Tensor]]:
    """Return the shortest paths `(n, m)`, and masks of the cells that they enter from above."""
    total: dict[Cell, Tensor] = {}
    from_above = {}
    for i, j in _grid(cells):
        before = [total[cell] for cell in ((i - 1, j), (i, j - 1)) if cell in total]
        total[i, j] = cells[i, :, j, :]
        if len(before) == 2:
            from_above[i, j] = before[0] <= before[1]
            before = [ops.minimum(*before)]
        if before:
            total[i, j] += before[0]
    return total[i, j], from_above


def _walk_back(from_above: dict[Cell, Tensor], weight: Tensor, cells: Tensor) -> Tensor:
    """Return the weights `(n, m)` in each cell of their paths and 0 elsewhere, `(s, n, t, m)`."""
    *most, last = _grid(cells)
    weights = {last: weight}
    for i, j in (last, *reversed(most)):
        here = weights[i, j]
        if (i, j) in from_above:
            up = ops.where(from_above[i, j], here, 0)
            ways = {(i - 1, j): up, (i, j - 1): here - up}
        else:  # along the upper or the left edge, to the corner
            ways = {(i - 1, j): here} if i else {(i, j - 1): here} if j else {}
        for cell, part in ways.items():
            weights[cell] = weights[cell] + part if cell in weights else part
    lines = [ops.stack([weights[i, j] for j in range(last[1] + 1)], 1) for i in range(last[0] + 1)]
    return ops.stack(lines)


def _grid(cells: Tensor) -> Iterator[Cell]:
    """Return the cells line by line."""
    return product(range(cells.shape[0]), range(cells.shape[2]))


def stripes_first(x: Tensor) -> Tensor:
    """Return all stripes as points `(s · n, d)`: the cells of the grid are then planes `(n, m)`."""
    return ops.reshape(ops.transpose(x, (1, 0, 2)), (-1, ops.shape(x)[2]))


def _images(x: Tensor) -> Tensor:
    x = at_least_float32(x)
    checks.shapes("Pass the output `local` of a model.", x=("(n, stripes, d)", x.shape))
    return x
