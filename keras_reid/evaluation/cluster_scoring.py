"""Agreement of groups of images with known persons."""

from dataclasses import dataclass
from statistics import harmonic_mean
from typing import Any

import numpy as np

from keras_reid.errors import counted
from keras_reid.evaluation.clusters import NOISE, separated
from keras_reid.evaluation.labels import Column, column
from keras_reid.evaluation.text import columns

PARTS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ClusterScores:
    """Agreement of groups with persons: fractions in [0, 1], and counts.

    An image in no group counts as a group of its own. `pair_*` score the pairs of images in one
    group.
    `bcubed_precision` is the mean over the images of the fraction of their group that shows their
    person, `bcubed_recall` that of the images of their person that are in their group. Each `f1` is
    the harmonic mean of precision and recall. `nmi` is the mutual information divided by the mean
    of both entropies.

    Example:
        >>> scores = cluster_scores([7, 7, 9], [0, 0, 1])
        >>> scores.pair_f1, scores.clusters
        (1.0, 2)
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

    def __str__(self) -> str:
        """Return a table in percent."""
        rows = {
            name: " / ".join(f"{100 * getattr(self, f'{key}_{part}'):.2f} %" for part in PARTS)
            for name, key in (("pairs: P / R / F", "pair"), ("B-cubed: P / R / F", "bcubed"))
        }
        rows["NMI"] = f"{100 * self.nmi:.2f} %"
        persons, images = counted(self.persons, "person"), counted(self.images, "image")
        rows["clusters"] = f"{self.clusters:,} of {persons} in {images}"
        rows["in no cluster"] = counted(self.noise, "image")
        return columns(rows)


def cluster_scores(labels: Column, clusters: np.ndarray) -> ClusterScores:
    """Return the agreement of groups with known persons.

    Args:
        labels: (n,) identities, integers or strings.
        clusters: (n,) integers, -1 for images in no group, as `cluster` returns them.

    Raises:
        InputError: columns that are not of one length of at least 1, or of other types.

    Example:
        >>> import numpy as np
        >>> scores = cluster_scores(["a", "a", "b", "b"], np.array([0, 0, 0, -1]))
        >>> round(scores.pair_precision, 2), scores.pair_recall  # one pair of three, and of two
        (0.33, 0.5)

    Source: Amigó et al., Information Retrieval 2009 (B-cubed).
    """
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    clusters = column(clusters, max(1, len(labels)), "clusters")
    persons = column(labels, len(clusters), "labels")
    groups = separated(clusters)
    shared = contingency_matrix(persons, groups, sparse=True).astype(np.float64)
    squares, count = shared.multiply(shared), len(clusters)
    together = squares.sum() - count
    scores: dict[str, Any] = {}
    for axis in (0, 1):  # sizes of the groups for precision, of the persons for recall
        size = np.asarray(shared.sum(axis=axis)).ravel()
        whole = (size**2).sum() - count
        own = np.asarray(squares.sum(axis=axis)).ravel() / size
        scores[f"pair_{PARTS[axis]}"] = float(together / whole) if whole else 1.0
        scores[f"bcubed_{PARTS[axis]}"] = float(own.sum() / count)
    return ClusterScores(
        **scores,
        pair_f1=harmonic_mean([scores["pair_precision"], scores["pair_recall"]]),
        bcubed_f1=harmonic_mean([scores["bcubed_precision"], scores["bcubed_recall"]]),
        nmi=float(normalized_mutual_info_score(persons, groups)),
        images=count,
        persons=shared.shape[0],
        clusters=len(np.unique(clusters[clusters != NOISE])),
        noise=int((clusters == NOISE).sum()),
    )
