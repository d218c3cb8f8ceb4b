"""Scores of predicted attributes, and a gallery filter by attributes with its cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import harmonic_mean
from typing import NamedTuple

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, Shown, counted, invalid
from keras_reid.evaluation.labels import Labeled
from keras_reid.evaluation.protocols import Protocol

Groups = Mapping[str, Sequence[int]]  # columns of exclusive attributes by the name of their group


@dataclass(frozen=True, eq=False)
class AttributeScores:
    """Scores of predicted attributes, fractions in [0, 1]; `str` returns a table.

    Attributes:
        mean_accuracies: `(TPR + TNR)/2` of each attribute by name.
        mA: their mean.
        classifier_accuracies: fraction of the images that each classifier predicts correctly, by
            name: the name of a single attribute, or of an exclusive group, such as the colors of
            trousers.
        classifier_accuracy: their mean, which papers on attributes of re-identification data call
            mA or average (Lin et al., Pattern Recognition 2019, arXiv:1703.07220).
        accuracy, precision, recall: means over the images of `|A∩B|/|A∪B|`, `|A∩B|/|B|` and
            `|A∩B|/|A|`, A the true and B the predicted attributes; images with an empty denominator
            are left out of that mean.
        f1: `2 · precision · recall / (precision + recall)`.
        left_out: constant attributes, which have no mean accuracy.
        images: number of images.

    Example:
        >>> import numpy as np
        >>> scores = attribute_scores(np.array([[1], [0]], bool), [[1], [0]], ["hat"])
        >>> scores.mA, scores.images
        (1.0, 2)
    """

    mean_accuracies: dict[str, float]
    mA: float
    classifier_accuracies: dict[str, float]
    classifier_accuracy: float
    accuracy: float
    precision: float
    recall: float
    f1: float
    left_out: tuple[str, ...]
    images: int

    def __str__(self) -> str:
        rows = {
            **self.mean_accuracies,
            "mean (mA)": self.mA,
            "right, by classifier": self.classifier_accuracy,
            **{f"instance {n}": getattr(self, n) for n in ("accuracy", "precision", "recall")},
            "instance f1": self.f1,
        }
        lines = [f"{name:<22}{100 * value:6.2f} %" for name, value in rows.items()]
        if self.left_out:
            lines.append(f"left out, equal for all images: {', '.join(self.left_out)}")
        lines.append(f"on {counted(self.images, 'image')}")
        return "\n".join(lines)


def predicted_attributes(
    probabilities: np.ndarray, exclusive: Sequence[Sequence[int]] = ()
) -> np.ndarray:
    """Return booleans (n, m): attributes above one half, and of an exclusive group the largest.

    Args:
        probabilities: (n, m).
        exclusive: columns of each exclusive group, such as the colors of trousers.

    Example:
        >>> import numpy as np
        >>> probabilities = np.array([[0.7, 0.3, 0.4]])
        >>> predicted_attributes(probabilities, exclusive=[(1, 2)]).tolist()
        [[True, False, True]]
    """
    chosen = np.asarray(probabilities) > 0.5
    for group in map(list, exclusive):
        largest = np.asarray(probabilities)[:, group].argmax(axis=1)
        chosen[:, group] = np.arange(len(group)) == largest[:, None]
    return chosen


def attribute_scores(
    predicted: np.ndarray, targets: np.ndarray, names: Sequence[str], groups: Groups | None = None
) -> AttributeScores:
    """Score predicted attributes against true ones.

    Args:
        predicted: booleans (n, m) of `predicted_attributes`.
        targets: (n, m), 1, 0 or −1 (unknown: left out).
        names: (m,).
        groups: columns of exclusive attributes by the name of their group. An image counts there
            if exactly one of them is true.

    Raises:
        InputError: different shapes, or only constant attributes.

    Example:
        >>> import numpy as np
        >>> predicted = np.array([[1, 0], [1, 1], [0, 1]], bool)
        >>> scores = attribute_scores(predicted, [[1, 0], [0, 1], [0, 1]], ["hat", "bag"])
        >>> scores.mean_accuracies, scores.mA
        ({'hat': 0.75, 'bag': 1.0}, 0.875)

    Source: Li et al., RAP, arXiv:1603.07054 (label and instance metrics).
    """
    predicted, targets = np.asarray(predicted, bool), np.asarray(targets)
    if predicted.shape != targets.shape or predicted.shape[1:] != (len(names),):
        shapes = Shown(f"{predicted.shape} and {targets.shape}")
        raise invalid("predicted and targets", f"of the shape (n, {len(names)})", shapes)
    true, false = targets > 0, targets == 0
    positive, negative = true.sum(0), false.sum(0)
    if not (varied := (positive > 0) & (negative > 0)).any():
        raise InputError("`targets` must have an attribute that only some images have, got none.")
    right = (predicted & true).sum(0) / np.maximum(positive, 1)
    rejected = (~predicted & false).sum(0) / np.maximum(negative, 1)
    mean = (right + rejected) / 2
    claimed = predicted & (targets >= 0)
    shared = (claimed & true).sum(1)
    accuracy, precision, recall = (
        float((shared[size > 0] / size[size > 0]).mean()) if size.any() else 0.0
        for size in (attributes.sum(1) for attributes in (claimed | true, claimed, true))
    )
    by_classifier = _classifier_accuracies(predicted, targets, names, groups or {})
    return AttributeScores(
        mean_accuracies={name: float(mean[i]) for i, name in enumerate(names) if varied[i]},
        mA=float(mean[varied].mean()),
        classifier_accuracies=by_classifier,
        classifier_accuracy=sum(by_classifier.values()) / max(len(by_classifier), 1),
        accuracy=accuracy,
        precision=precision,
        recall=recall,
        f1=harmonic_mean([precision, recall]),
        left_out=tuple(name for i, name in enumerate(names) if not varied[i]),
        images=len(predicted),
    )


def _classifier_accuracies(
    predicted: np.ndarray, targets: np.ndarray, names: Sequence[str], groups: Groups
) -> dict[str, float]:
    """Return the fraction predicted correctly by each classifier that has an image to score."""
    grouped = {column for columns in groups.values() for column in columns}
    classifiers = {name: [i] for i, name in enumerate(names) if i not in grouped}
    classifiers |= {f"{name}: one of {len(group)}": [*group] for name, group in groups.items()}
    accuracies = {}
    for name, columns in classifiers.items():
        true = targets[:, columns]
        counted = (true >= 0).all(1)
        if len(columns) > 1:
            counted &= (true > 0).sum(1) == 1
        if counted.any():
            right = (predicted[:, columns] == (true > 0)).all(1)
            accuracies[name] = float(right[counted].mean())
    return accuracies


class PreFilter(NamedTuple):
    """Gallery images that are compared with each query, and the cost of the filter.

    Attributes:
        kept: booleans (q, g).
        fraction: fraction of the gallery that is kept, mean over the queries.
        recall: fraction of the true matches that are kept.
    """

    kept: np.ndarray
    fraction: float
    recall: float


def prefilter(
    probabilities: tuple[np.ndarray, np.ndarray],
    query: Labeled,
    gallery: Labeled,
    protocol: str = "market1501",
    confidence: float = 0.9,
) -> PreFilter:
    """Discard gallery images with certain attributes that contradict those of a query.

    An attribute is certainly present at a probability of at least `confidence`, and certainly
    absent at most at `1 − confidence`. A single contradiction discards (Lin et al., Pattern
    Recognition 2019, arXiv:1703.07220).

    Args:
        probabilities: probabilities of the attributes of query (q, m) and gallery (g, m).
        query: labels of the q query images, for the true matches.
        gallery: labels of the g gallery images.
        protocol: name, as in `rank`.
        confidence: in (0.5, 1].

    Raises:
        InputError: a confidence out of range, or labels that do not fit.

    Example:
        >>> import numpy as np
        >>> from keras_reid.evaluation import Labels
        >>> probabilities = np.array([[0.95, 0.5]]), np.array([[0.02, 0.9], [0.6, 0.1]])
        >>> filtered = prefilter(probabilities, Labels([7], [0]), Labels([8, 7], [1, 1]))
        >>> filtered.kept.tolist(), filtered.recall
        ([[False, True]], 1.0)
    """
    q, g = map(np.asarray, probabilities)
    checks.within("(0.5, 1]", "0.9 is usual.", confidence=confidence)
    yes = [(x >= confidence).astype(np.float32) for x in (q, g)]
    no = [(x <= 1 - confidence).astype(np.float32) for x in (q, g)]
    kept = (yes[0] @ no[1].T + no[0] @ yes[1].T) == 0
    labels = Protocol.of(protocol).codes(query, gallery, kept.shape)
    same, junk = labels.masks(0, len(kept))
    hits = kept[same & ~junk]
    return PreFilter(kept, float(kept.mean()), float(hits.mean()) if len(hits) else 0.0)
