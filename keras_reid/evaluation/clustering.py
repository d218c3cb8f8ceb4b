"""Grouping N:N: which images of an unlabelled set show the same person, and how well that went."""

import heapq
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from keras_reid.errors import InputError
from keras_reid.evaluation.labels import Labels, column

NOISE = -1
METHODS = ("dbscan", "agglomerative")
DEFAULT_EPS = {"dbscan": 0.6, "agglomerative": 0.8}


def cluster(
    features: Any,
    method: str = "dbscan",
    eps: float | None = None,
    min_samples: int = 4,
    k1: int = 20,
    k2: int = 6,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Numbers of persons by the Jaccard distances of k-reciprocal encodings.

    Memory grows as n (d + k1²): distances are kept only where they are below 1.

    Args:
        features: (n, d), compared by Euclidean distance; may be memory-mapped.
        method: "dbscan" (scikit-learn) joins what is chained by images with `min_samples`
            neighbours within `eps`, themselves included, and leaves others out; "agglomerative"
            merges the two groups of the least mean distance while that is at most `eps`.
        eps: default 0.6 for "dbscan", as in cluster contrast learning, 0.8 for "agglomerative".
        min_samples: of "dbscan".
        k1, k2: as in `reranking.k_reciprocal`; persons of far fewer images than k1 are easily
            joined.
        progress: called with the number of images done and n while neighbours are looked for.

    Returns:
        int64 (n,): 0, 1, … by size, the largest first; -1 for images that belong to nobody.

    Raises:
        InputError: features that are not a finite 2-D array, an unknown method, or other numbers.

    Source: Ester et al., KDD 1996; Dai et al., ACCV 2022, arXiv:2103.11568.
    """
    from keras_reid.reranking import SparseJaccard

    if method not in METHODS:
        raise InputError(f"method is one of {', '.join(METHODS)}, received {method!r}: choose one")
    eps = DEFAULT_EPS[method] if eps is None else eps
    if not 0 < eps < 1 or min_samples < 1:
        raise InputError(
            "eps is a Jaccard distance between 0 and 1 and min_samples at least 1, received "
            f"{eps} and {min_samples}: 0.6 and 4 are usual"
        )
    jaccard = SparseJaccard(features, k1, k2, progress)
    if method == "dbscan":
        from sklearn.cluster import DBSCAN
        from sklearn.neighbors import sort_graph_by_row_values

        near = sort_graph_by_row_values(jaccard.within(eps), warn_when_not_sorted=False)
        found = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(near).labels_
    else:
        similarity = jaccard.within(float(np.nextafter(np.float32(1), np.float32(0))))
        similarity.data = 1 - similarity.data
        found = average_linkage(similarity, 1 - eps)
    return _by_size(found)


def average_linkage(similarity: Any, least: float) -> np.ndarray:
    """Groups (n,) after merging, most alike first, all whose mean similarity is at least `least`.

    `similarity` is a symmetric sparse matrix (n, n) of which missing elements are 0, and stay 0
    in the means: the result is that of average linkage on the whole matrix.
    """
    count = similarity.shape[0]
    links = [
        dict(zip(similarity.indices[a:b].tolist(), similarity.data[a:b].tolist(), strict=True))
        for a, b in zip(similarity.indptr[:-1], similarity.indptr[1:], strict=True)
    ]
    for i, others in enumerate(links):
        others.pop(i, None)
    size, members = [1] * count, [[i] for i in range(count)]
    heap = [(-s, i, j) for i, others in enumerate(links) for j, s in others.items() if i < j]
    heapq.heapify(heap)
    gone: set[int] = set()
    while heap and -heap[0][0] >= least:
        _, i, j = heapq.heappop(heap)
        if i in gone or j in gone:
            continue
        new = len(size)  # a group that merges gets a new number, so old links are known to be old
        gone.update((i, j))
        size.append(size[i] + size[j])
        members.append(members[i] + members[j])
        merged = links[i]
        for k, total in links[j].items():
            merged[k] = merged.get(k, 0.0) + total
        merged.pop(i, None)
        merged.pop(j, None)
        links.append(merged)
        links[i] = links[j] = members[i] = members[j] = None  # type: ignore[call-overload]
        for k, total in merged.items():
            other = links[k]
            other.pop(i, None)
            other.pop(j, None)
            other[new] = total
            heapq.heappush(heap, (-total / (size[new] * size[k]), k, new))
    found = np.empty(count, np.int64)
    groups = [group for i, group in enumerate(members) if i not in gone]
    for number, group in enumerate(groups):
        found[group] = number
    return found


@dataclass(frozen=True)
class ClusterScores:
    """How far groups agree with persons: fractions in [0, 1], and counts.

    An image that belongs to no group counts as a group of its own. `pair_*` are of pairs of
    images in one group; `bcubed_*` are means over the images of the share of their group that
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

    def as_dict(self) -> dict[str, float]:
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
            f"{self.clusters:,} of {self.persons:,} persons in {self.images:,} images"
        )
        rows["in no cluster"] = f"{self.noise:,} images"
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


PARTS = ("precision", "recall", "f1")


def cluster_scores(labels: Labels, clusters: np.ndarray) -> ClusterScores:
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
