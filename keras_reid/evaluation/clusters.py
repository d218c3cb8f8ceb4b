"""Grouping N:N: which images of an unlabeled set show the same person, and how well that went."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, counted
from keras_reid.evaluation.comparison import compare
from keras_reid.evaluation.labels import Column, column

NOISE = -1
METHODS = ("dbscan", "agglomerative")

# What is tried where nothing is given: persons have few images, so most k1 are small.
K1 = (4, 5, 7, 10, 15, 20, 30)
EPS = {
    "dbscan": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75),
    "agglomerative": (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9),
}
COMPARED = 4_000  # images of which all pairs are decided
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@dataclass(frozen=True, eq=False)
class Clustering:
    """Who shows whom, and by which numbers that was found.

    Attributes:
        labels: int64 (n,): 0, 1, … by size, the largest first; -1 for images that belong to nobody.
        eps, k1, k2: given or chosen, see `clustering`.
        silhouette: by the Jaccard distances of k1 and k2, see `silhouette`.
    """

    labels: np.ndarray
    eps: float
    k1: int
    k2: int
    silhouette: float

    @property
    def largest(self) -> float:
        """The fraction of the images that the largest cluster holds."""
        return float((self.labels == 0).mean())


def cluster(features: Any, *options: Any, **named: Any) -> np.ndarray:
    """`clustering(features, …).labels`: numbers of persons, the largest first; -1 for nobody."""
    return clustering(features, *options, **named).labels


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
    """Groups of images of one person, by the Jaccard distances of k-reciprocal encodings.

    What is not given is chosen: of the pairs of a k1 in `K1` and an eps in `EPS` the one by whose
    own Jaccard distances the mean silhouette of "dbscan" is largest, images in no group counting as
    0; "agglomerative" takes that k1, and its own best eps. Where distances are known up to which
    two images are of one person, and any are so near, the choice is by `agreement` with these
    instead. Memory grows as n (d + k1²), since distances are kept only where they are below 1;
    "agglomerative" needs 8 n² bytes more.

    Args:
        features: (n, d), compared by Euclidean distance; may be memory-mapped.
        method: "dbscan" (scikit-learn) joins what is chained by images with `min_samples`
            neighbors within `eps`, themselves included, and leaves others out; "agglomerative"
            merges the two groups of the least mean distance while that is at most `eps`.
        eps: a Jaccard distance between 0 and 1; None: chosen.
        min_samples: of "dbscan".
        k1, k2: as in `reranking.k_reciprocal`; k1 None: chosen, k2 None: 0.3 k1, from 2 to 6.
            Persons of far fewer images than k1 are easily joined.
        progress: called with the number of images done and n while neighbors are looked for.
        pairs: distances of a low and of a higher rate of false accepts, such as 1e-4 and 1e-2, of
            the model that made the features; None: not known.

    Raises:
        InputError: features that are not a finite 2-D array, an unknown method, or other numbers.

    Source: Ester et al., KDD 1996; Dai et al., ACCV 2022, arXiv:2103.11568; Rousseeuw, Journal of
    Computational and Applied Mathematics 1987 (silhouette).
    """
    from keras_reid.reranking import SparseJaccard

    checks.one_of(METHODS, method=method)
    checks.at_least(1, "4 is usual", min_samples=min_samples)
    if eps is not None:
        checks.within("(0, 1)", "a Jaccard distance, of which 0.6 is usual", eps=eps)

    def best(method: str, sizes: Sequence[int], tried: Sequence[float]) -> Clustering:
        found = []
        for near in sizes:
            averaged = min(max(2, -(-3 * near // 10)), 6, near) if k2 is None else k2
            jaccard = SparseJaccard(features, near, averaged, progress).within(BELOW_ONE)
            similarity = jaccard.copy()
            similarity.data = 1 - similarity.data
            if method == "agglomerative":
                groups = average_linkages(jaccard, tried)
            else:
                groups = (_by_density(jaccard, eps, min_samples) for eps in tried)
            for limit, labels in zip(tried, map(_by_size, groups), strict=True):
                score = silhouette(similarity, labels)
                found.append(Clustering(labels, limit, near, averaged, score))
        scores = [one.silhouette for one in found]
        if pairs is not None and len(found) > 1:
            agreements = agreement(features, [one.labels for one in found], pairs)
            scores = agreements if any(agreements) else scores
        return found[int(np.argmax(scores))]

    count = len(features)
    sizes = [k for k in K1 if 2 * k < count] or [max(1, count - 1)]
    sizes = sizes if k1 is None else [k1]
    if method != "dbscan" and len(sizes) > 1:
        sizes = [best("dbscan", sizes, EPS["dbscan"]).k1]
    return best(method, sizes, EPS[method] if eps is None else [eps])


def _by_density(jaccard: Any, eps: float, min_samples: int) -> np.ndarray:
    """DBSCAN of distances in a sparse matrix (n, n)."""
    from sklearn.cluster import DBSCAN
    from sklearn.neighbors import sort_graph_by_row_values

    near = sort_graph_by_row_values(jaccard, copy=True, warn_when_not_sorted=False)
    return DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(near).labels_


def silhouette(similarity: Any, labels: np.ndarray) -> float:
    """The mean silhouette of distances `1 − s_ij`, of which the sparse matrix (n, n) has s_ij > 0.

    `(b − a) / max(a, b)` of an image, a its mean distance to the others of its cluster and b that
    to the nearest other cluster; 0 for an image alone (Rousseeuw, 1987). −1 if all are in one.
    """
    from scipy.sparse import csr_matrix

    count = len(labels)
    alone = labels == NOISE
    groups = labels.copy()
    groups[alone] = labels.max(initial=-1) + 1 + np.arange(alone.sum())
    size = np.bincount(groups)
    if len(size) < 2:
        return -1.0
    member = csr_matrix((np.ones(count), (np.arange(count), groups)), shape=(count, len(size)))
    shared = (similarity.astype(np.float64) @ member).tocoo()  # summed over each cluster: sparse
    own = groups[shared.row] == shared.col
    within = np.zeros(count)
    within[shared.row[own]] = shared.data[own]
    others = size[groups] - 1
    # An image is at similarity 1 to itself, which is in the sum.
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
    """How well groups agree with decisions about pairs: the harmonic mean of two shares.

    Of the pairs of at most the smaller distance, which are one person's nearly for sure, those that
    are in one group; and of the pairs in one group those of at most the larger distance.

    Of many images `COMPARED` are drawn, always the same ones.

    Args:
        features: (n, d), compared by Euclidean distance.
        groupings: each of labels (n,), `NOISE` for nobody.
        pairs: the smaller and the larger distance.

    Raises:
        InputError: distances that fall.
    """
    sure, possible = pairs
    if not 0 <= sure <= possible:
        raise InputError(
            f"pairs are decided by a smaller and a larger distance: received {sure} and {possible}"
        )
    few = np.sort(np.random.default_rng(0).permutation(len(features))[:COMPARED])
    chosen, drawn = np.asarray(features)[few], [labels[few] for labels in groupings]
    counts = np.zeros((len(groupings), 3))  # sure and together, together, together and possible
    near = 0
    for start, block in compare(chosen, chosen).blocks():
        later = np.arange(len(few)) > np.arange(start, start + len(block))[:, None]
        certain, plausible = later & (block <= sure), later & (block <= possible)
        near += int(certain.sum())
        for row, labels in enumerate(drawn):
            own = labels[start : start + len(block), None]
            together = later & (own == labels) & (own != NOISE)
            found = together & certain, together, together & plausible
            counts[row] += [one.sum() for one in found]
    recall = counts[:, 0] / max(near, 1)
    precision = counts[:, 2] / np.maximum(counts[:, 1], 1)
    total = recall + precision
    return (2 * recall * precision / np.where(total > 0, total, 1)).tolist()


def average_linkages(jaccard: Any, limits: Sequence[float]) -> Iterator[np.ndarray]:
    """Groups (n,) after merging the nearest while their mean distance is at most each limit.

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


@dataclass(frozen=True)
class ClusterScores:
    """How far groups agree with persons: fractions in [0, 1], and counts.

    An image that belongs to no group counts as a group of its own. `pair_*` are of pairs of
    images in one group; `bcubed_*` are means over the images of the fraction of their group that
    shows them, and of their images that are in their group; each `f1` is the harmonic mean of its
    precision and recall. `nmi` is the mutual information divided by the mean of both entropies.
    """

    pair_precision: float
    pair_recall: float
    pair_f1: float
    bcubed_precision: float
    bcubed_recall: float
    bcubed_f1: float
    nmi: float
    images: int
    persons: int
    clusters: int
    noise: int

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)

    def __str__(self) -> str:
        """One table, in percent."""
        rows = {
            name: " / ".join(f"{100 * getattr(self, f'{key}_{part}'):.2f} %" for part in PARTS)
            for name, key in (("pairs: P / R / F", "pair"), ("B-cubed: P / R / F", "bcubed"))
        }
        rows["NMI"] = f"{100 * self.nmi:.2f} %"
        rows["clusters"] = (
            f"{self.clusters:,} of {counted(self.persons, 'person')} in "
            f"{counted(self.images, 'image')}"
        )
        rows["in no cluster"] = counted(self.noise, "image")
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


PARTS = ("precision", "recall", "f1")


def cluster_scores(labels: Column, clusters: np.ndarray) -> ClusterScores:
    """Agreement of groups with known persons.

    Args:
        labels: (n,) identities, integers or strings.
        clusters: (n,) integers, -1 for images in no group, as `cluster` returns them.

    Raises:
        InputError: columns that are not of one length of at least 1, or of other types.

    Source: Amigó et al., Information Retrieval 2009 (B-cubed).
    """
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    clusters = np.asarray(clusters)
    if clusters.ndim != 1 or clusters.dtype.kind not in "iu" or not len(clusters):
        raise InputError(
            "clusters are one column of integers, one for each image, received "
            f"{clusters.dtype} {clusters.shape}: pass what evaluation.cluster returned"
        )
    persons = column(labels, len(clusters), "labels")
    noise = clusters == NOISE
    groups = clusters.copy()
    groups[noise] = clusters.max(initial=0) + 1 + np.arange(noise.sum())
    met = contingency_matrix(persons, groups, sparse=True).astype(np.float64)
    squares = met.multiply(met)
    of_person, of_group = (np.asarray(met.sum(axis=a)).ravel() for a in (1, 0))
    count = len(groups)
    together = squares.sum() - count
    pairs = (
        (_share(together, (of_group**2).sum() - count)),
        _share(together, (of_person**2).sum() - count),
    )
    bcubed = (
        float((np.asarray(squares.sum(axis=0)).ravel() / of_group).sum() / count),
        float((np.asarray(squares.sum(axis=1)).ravel() / of_person).sum() / count),
    )
    return ClusterScores(
        *pairs,
        _harmonic(*pairs),
        *bcubed,
        _harmonic(*bcubed),
        nmi=float(normalized_mutual_info_score(persons, groups)),
        images=count,
        persons=len(of_person),
        clusters=len(np.unique(clusters[~noise])),
        noise=int(noise.sum()),
    )


def _share(part: float, whole: float) -> float:
    """Of no pairs at all, none is wrong."""
    return float(part / whole) if whole else 1.0


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _by_size(found: np.ndarray) -> np.ndarray:
    """Numbers of groups by size, the largest first and equal ones by their first image."""
    kept = found != NOISE
    _, first, code, size = np.unique(
        found[kept], return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(size), np.int64)
    place[np.lexsort((first, -size))] = np.arange(len(size))
    result = np.full(len(found), NOISE, np.int64)
    result[kept] = place[code]
    return result
