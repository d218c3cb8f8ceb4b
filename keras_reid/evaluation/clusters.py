"""Clustering N:N: group the images of an unlabeled set by person."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import Any, NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.evaluation.comparison import matrix

NOISE = -1  # label of images in no group
METHODS = ("dbscan", "agglomerative")

# Default candidates. Persons have few images, so most k1 are small.
K1 = (4, 5, 7, 10, 15, 20, 30)
EPS = {
    "dbscan": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75),
    "agglomerative": (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
}
SAMPLE = 4_000  # number of images in the comparison with decisions about pairs
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@dataclass(frozen=True, eq=False)
class Clustering:
    """Groups of images, with their parameters.

    Attributes:
        labels: int64 (n,): 0, 1, … by size, the largest first; -1 for images in no group.
        eps, k1, k2: parameters, as given or as chosen by `clustering`.
        silhouette: by the Jaccard distances of k1 and k2, see `silhouette`.

    Example:
        >>> import numpy as np
        >>> Clustering(np.array([0, 0, 1, -1]), eps=0.6, k1=20, k2=6, silhouette=0.5).largest
        0.5
    """

    labels: np.ndarray
    eps: float
    k1: int
    k2: int
    silhouette: float

    @property
    def largest(self) -> float:
        """Fraction of the images in the largest group."""
        return float((self.labels == 0).mean())


def cluster(features: Any, *options: Any, **named: Any) -> np.ndarray:
    """Return the labels of `clustering`: 0, 1, … by size, and -1 for images in no group.

    Args:
        features: (n, d).
        *options: other arguments of `clustering` in their order.
        **named: other arguments of `clustering` by name.

    Returns:
        int64 (n,).

    Raises:
        InputError: as `clustering`.

    Example:
        >>> x = [[0.0, 0.0], [0.1, 0.0], [0.0, 0.1], [9.0, 9.0], [9.1, 9.0]]
        >>> cluster(x, eps=0.6, min_samples=2, k1=2, k2=1).tolist()
        [0, 0, 0, 1, 1]
    """
    return clustering(features, *options, **named).labels


# Eight arguments: the options of the command, and its progress.
def clustering(
    features: Any,
    method: str = "dbscan",
    eps: float | None = None,
    min_samples: int = 4,
    k1: int | None = None,
    k2: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    pairs: tuple[float, float] | None = None,
) -> Clustering:
    """Group images of one person by the Jaccard distances of k-reciprocal encodings.

    Parameters without a value are chosen among the pairs of a k1 in `K1` and an eps in `EPS`: for
    "dbscan" the pair with the largest mean silhouette by its own Jaccard distances, where images in
    no group count as 0; "agglomerative" takes that k1, and its own best eps. If `pairs` is given,
    and any two images are at most at its smaller distance, the choice is by `agreement` instead.
    Memory grows as n (d + k1²), because only distances below 1 are stored; "agglomerative" needs
    8 n² bytes more.

    Args:
        features: (n, d), compared by Euclidean distance; may be memory-mapped.
        method: "dbscan" (scikit-learn) joins images that are chained by images with `min_samples`
            neighbors within `eps`, themselves included, and leaves others out. "agglomerative"
            merges the two groups of the least mean distance while that is at most `eps`.
        eps: a Jaccard distance between 0 and 1; None: chosen.
        min_samples: minimum size of a neighborhood, for "dbscan".
        k1: number of neighbors, as in `reranking.k_reciprocal`; None: chosen. A k1 far above the
            number of images of a person joins persons.
        k2: number of neighbors with averaged encodings; None: 0.3 k1, from 2 to 6.
        progress: called with the number of images done and n during the search for neighbors.
        pairs: distances at a low and at a higher false acceptance rate, such as 1e-4 and 1e-2, of
            the model of the features; None: unknown.

    Returns:
        Clustering: labels, the chosen parameters and the silhouette.

    Raises:
        InputError: features that are not a finite 2-D array, an unknown method, or numbers out of
            range.

    Example:
        >>> import numpy as np
        >>> random, persons = np.random.default_rng(0), np.repeat(np.arange(4), 6)
        >>> x = random.normal(size=(4, 8))[persons] + 0.1 * random.normal(size=(24, 8))
        >>> groups = clustering(x, k1=4)
        >>> len(set(groups.labels.tolist())), groups.largest
        (4, 0.25)

    Source: Ester et al., KDD 1996; Dai et al., ACCV 2022, arXiv:2103.11568; Rousseeuw, Journal of
    Computational and Applied Mathematics 1987 (silhouette).
    """
    checks.one_of(METHODS, method=method)
    checks.at_least(1, "4 is usual.", min_samples=min_samples)
    if eps is not None:
        checks.within("(0, 1)", "0.6 is usual.", eps=eps)

    sizes = [k for k in K1 if 2 * k < len(features)] or [max(1, len(features) - 1)]
    sizes = sizes if k1 is None else [k1]
    groupings = _Groupings(features, min_samples, k2, progress, pairs)
    if method != "dbscan" and len(sizes) > 1:
        sizes = [groupings.best("dbscan", sizes, EPS["dbscan"]).k1]
    return groupings.best(method, sizes, EPS[method] if eps is None else [eps])


class _Groupings(NamedTuple):
    """Arguments of `clustering` that are the same for all groupings."""

    features: Any
    min_samples: int
    k2: int | None
    progress: Callable[[int, int], None] | None
    pairs: tuple[float, float] | None

    def best(self, method: str, sizes: Sequence[int], limits: Sequence[float]) -> Clustering:
        """Return the best of the groups of each k1 in `sizes` and eps in `limits`."""
        groupings = [one for k1 in sizes for one in self._at(method, k1, limits)]
        scores = [one.silhouette for one in groupings]
        if self.pairs is not None and len(groupings) > 1:
            agreements = agreement(self.features, [one.labels for one in groupings], self.pairs)
            scores = agreements if any(agreements) else scores
        return groupings[int(np.argmax(scores))]

    def _at(self, method: str, k1: int, limits: Sequence[float]) -> Iterator[Clustering]:
        """Yield the groups at each limit."""
        from keras_reid.reranking import SparseJaccard

        k2 = min(max(2, -(-3 * k1 // 10)), 6, k1) if self.k2 is None else self.k2
        jaccard = SparseJaccard(self.features, k1, k2, self.progress).within(BELOW_ONE)
        similarity = jaccard.copy()
        similarity.data = 1 - similarity.data
        if method == "agglomerative":
            groups = average_linkages(jaccard, limits)
        else:
            groups = (_by_density(jaccard, eps, self.min_samples) for eps in limits)
        for limit, labels in zip(limits, map(_by_size, groups), strict=True):
            yield Clustering(labels, limit, k1, k2, silhouette(similarity, labels))


def _by_density(jaccard: Any, eps: float, min_samples: int) -> np.ndarray:
    """Return the labels of DBSCAN of distances in a sparse matrix (n, n)."""
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import sort_graph_by_row_values

    near = sort_graph_by_row_values(jaccard, copy=True, warn_when_not_sorted=False)
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(near).labels_


def silhouette(similarity: Any, labels: np.ndarray) -> float:
    """Return the mean silhouette of distances `1 − s_ij`; the sparse matrix (n, n) has s_ij > 0.

    The silhouette of an image is `(b − a) / max(a, b)`, with a its mean distance to the other
    images of its group, and b that to the nearest other group. It is 0 for an image alone
    (Rousseeuw, 1987). If there is only one group, return −1.
    """
    from scipy.sparse import csr_matrix

    groups, count = separated(labels), len(labels)
    size = np.bincount(groups)
    if len(size) < 2:
        return -1.0
    member = csr_matrix((np.ones(count), (np.arange(count), groups)), shape=(count, len(size)))
    shared = (similarity.astype(np.float64) @ member).tocoo()  # sums over each group: sparse
    own = groups[shared.row] == shared.col
    within = np.zeros(count)
    within[shared.row[own]] = shared.data[own]
    others = size[groups] - 1
    # The sum contains the similarity 1 of an image to itself.
    a = 1 - (within - similarity.diagonal()) / np.maximum(others, 1)
    most = np.zeros(count)
    np.maximum.at(most, shared.row[~own], shared.data[~own] / size[shared.col[~own]])
    b = 1 - most
    largest = np.maximum(a, b)
    score = np.where((others > 0) & (largest > 0), (b - a) / np.where(largest > 0, largest, 1), 0)
    return float(score.mean())


def agreement(
    features: Any, groupings: Sequence[np.ndarray], pairs: tuple[float, float]
) -> list[float]:
    """Return the agreement of groups with decisions about pairs: the harmonic mean of two shares.

    Recall is the share of pairs up to the smaller distance, almost certainly of one person, that
    are in one group. Precision is the share of pairs in one group up to the larger distance. Of
    many images a fixed sample of `SAMPLE` is used.

    Args:
        features: (n, d), compared by Euclidean distance.
        groupings: each of labels (n,), `NOISE` for images in no group.
        pairs: the smaller and the larger distance.
    """
    few = np.sort(np.random.default_rng(0).permutation(len(features))[:SAMPLE])
    row, column = np.triu_indices(len(few), 1)
    distance = matrix(np.asarray(features)[few])[row, column]
    certain, plausible = (distance <= limit for limit in pairs)
    first, second = few[row], few[column]
    scores = []
    for labels in groupings:
        together = (labels[first] == labels[second]) & (labels[first] != NOISE)
        recall = (together & certain).sum() / max(certain.sum(), 1)
        precision = (together & plausible).sum() / max(together.sum(), 1)
        scores.append(harmonic_mean([float(precision), float(recall)]))
    return scores


def separated(labels: np.ndarray) -> np.ndarray:
    """Return labels (n,) with a new label for each image in no group."""
    alone = labels == NOISE
    groups = labels.copy()
    groups[alone] = labels.max(initial=-1) + 1 + np.arange(alone.sum())
    return groups


def average_linkages(jaccard: Any, limits: Sequence[float]) -> Iterator[np.ndarray]:
    """Return groups (n,) by merging the nearest while their mean distance is at most each limit.

    Missing elements of the symmetric sparse matrix (n, n) of distances are 1.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    count = jaccard.shape[0]
    if count == 1:
        return (np.zeros(1, int) for _ in limits)
    pairs = jaccard.tocoo()
    later = pairs.row < pairs.col
    row, column = pairs.row[later].astype(np.int64), pairs.col[later]
    condensed = np.ones(count * (count - 1) // 2)  # the upper triangle, row by row
    condensed[row * (2 * count - row - 3) // 2 + column - 1] = pairs.data[later]
    tree = linkage(condensed, "average")
    return (fcluster(tree, limit, "distance") for limit in limits)


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Number the groups by size, the largest first, and equal ones by their first image."""
    kept = labels != NOISE
    _, first, code, size = np.unique(
        labels[kept], return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(size), np.int64)
    place[np.lexsort((first, -size))] = np.arange(len(size))
    result = np.full(len(labels), NOISE, np.int64)
    result[kept] = place[code]
    return result
