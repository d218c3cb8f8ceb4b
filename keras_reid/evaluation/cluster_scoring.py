"""Agreement of groups of images with known persons."""

from dataclasses import asdict, dataclass

import numpy as np

from keras_reid.errors import Shown, counted, invalid
from keras_reid.evaluation.clusters import NOISE
from keras_reid.evaluation.labels import Column, column

PARTS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ClusterScores:
    """Agreement of groups with persons: fractions in [0, 1], and counts.

    An image in no group counts as a group of its own. `pair_*` are of pairs of images in one group.
    `bcubed_precision` is the mean over the images of the fraction of their group that shows their
    person, `bcubed_recall` that of the images of their person that are in their group. Each `f1` is
    the harmonic mean of precision and recall. `nmi` is the mutual information divided by the mean
    of both entropies.
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
        """Return plain numbers."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table in percent."""
        rows = {
            name: " / ".join(f"{100 * getattr(self, f'{key}_{part}'):.2f} %" for part in PARTS)
            for name, key in (("pairs: P / R / F", "pair"), ("B-cubed: P / R / F", "bcubed"))
        }
        rows["NMI"] = f"{100 * self.nmi:.2f} %"
        images, persons = counted(self.images, "image"), counted(self.persons, "person")
        rows["clusters"] = f"{self.clusters:,} of {persons} in {images}"
        rows["in no cluster"] = counted(self.noise, "image")
        width = max(map(len, rows))
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def cluster_scores(labels: Column, clusters: np.ndarray) -> ClusterScores:
    """Return the agreement of groups with known persons.

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
        received = Shown(f"{clusters.dtype} {clusters.shape}")
        raise invalid("clusters", "integers (n,), one for each image", received)
    persons = column(labels, len(clusters), "labels")
    noise = clusters == NOISE
    groups = clusters.copy()
    groups[noise] = clusters.max(initial=0) + 1 + np.arange(noise.sum())
    shared = contingency_matrix(persons, groups, sparse=True).astype(np.float64)
    squares = shared.multiply(shared)
    count = len(groups)
    together = squares.sum() - count
    pair: list[float] = []
    bcubed: list[float] = []
    for axis in (0, 1):  # sizes of the groups for precision, of the persons for recall
        size = np.asarray(shared.sum(axis=axis)).ravel()
        whole = (size**2).sum() - count
        pair.append(float(together / whole) if whole else 1.0)
        bcubed.append(float((np.asarray(squares.sum(axis=axis)).ravel() / size).sum() / count))
    return ClusterScores(
        pair_precision=pair[0],
        pair_recall=pair[1],
        pair_f1=_harmonic(*pair),
        bcubed_precision=bcubed[0],
        bcubed_recall=bcubed[1],
        bcubed_f1=_harmonic(*bcubed),
        nmi=float(normalized_mutual_info_score(persons, groups)),
        images=count,
        persons=shared.shape[0],
        clusters=len(np.unique(clusters[~noise])),
        noise=int(noise.sum()),
    )


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
