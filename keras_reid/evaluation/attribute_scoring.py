"""How well attributes are predicted, and what it costs to look only where they agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_reid import checks
from keras_reid.errors import InputError, counted
from keras_reid.evaluation.labels import Labeled, codes
from keras_reid.evaluation.protocols import Protocol, matches


@dataclass(frozen=True, eq=False)
class AttributeScores:
    """Scores of predicted attributes, fractions in [0, 1]; printing it prints a table.

    Attributes:
        mean_accuracies: `(TPR + TNR)/2` of each attribute by name.
        mA: their mean.
        classifier_accuracies: fraction of the images predicted right by each classifier, by name:
            of an attribute alone, or of an exclusive group, one class of several, such as the
            colors of trousers.
        classifier_accuracy: their mean, which papers on attributes of re-identification data call
            mA or average (Lin et al., Pattern Recognition 2019, arXiv:1703.07220).
        accuracy, precision, recall: means over the images of `|A∩B|/|A∪B|`, `|A∩B|/|B|` and
            `|A∩B|/|A|`, A the true and B the predicted attributes; images for which the set below
            the line is empty are left out of that mean.
        f1: `2 · precision · recall / (precision + recall)`.
        left_out: attributes that all or none of the images have, of which there is no mA.
        images: how many.
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
        lines = [f"{name:<22}{100 * value:6.2f} %" for name, value in self.mean_accuracies.items()]
        lines.append(f"{'mean (mA)':<22}{100 * self.mA:6.2f} %")
        lines.append(f"{'right, by classifier':<22}{100 * self.classifier_accuracy:6.2f} %")
        for name in ("accuracy", "precision", "recall", "f1"):
            lines.append(f"{'instance ' + name:<22}{100 * getattr(self, name):6.2f} %")
        if self.left_out:
            lines.append(f"left out, for all images are alike: {', '.join(self.left_out)}")
        lines.append(f"on {counted(self.images, 'image')}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**vars(self), "left_out": list(self.left_out)}


def predicted_attributes(
    probabilities: np.ndarray, exclusive: Sequence[Sequence[int]] = ()
) -> np.ndarray:
    """Which attributes (n, m) are there: above one half, of an exclusive group the largest."""
    chosen = np.asarray(probabilities) > 0.5
    for group in map(list, exclusive):
        largest = np.asarray(probabilities)[:, group].argmax(axis=1)
        chosen[:, group] = np.arange(len(group)) == largest[:, None]
    return chosen


def attribute_scores(
    predicted: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    groups: Mapping[str, Sequence[int]] | None = None,
) -> AttributeScores:
    """Scores of predicted attributes against true ones.

    Args:
        predicted: booleans (n, m), as `predicted_attributes` gives them.
        targets: (n, m), 1, 0 or −1 (unknown: left out).
        names: (m,).
        groups: columns of exclusive attributes by the name of their group. An image counts there
            if exactly one of them is true.

    Raises:
        InputError: shapes that differ, or no attribute of which there are both.

    Source: Li et al., RAP, arXiv:1603.07054 (label and instance metrics).
    """
    predicted, targets = np.asarray(predicted, bool), np.asarray(targets)
    if predicted.shape != targets.shape or predicted.shape[1:] != (len(names),):
        raise InputError(
            f"predicted and true attributes are (n, {len(names)}): received {predicted.shape} and "
            f"{targets.shape}"
        )
    known, true = targets >= 0, targets > 0
    false = known & ~true
    positive, negative = true.sum(0), false.sum(0)
    both = (positive > 0) & (negative > 0)
    if not both.any():
        raise InputError("attributes are scored where some images have them and others do not")
    right = (predicted & true).sum(0) / np.maximum(positive, 1)
    rejected = (~predicted & false).sum(0) / np.maximum(negative, 1)
    mean = (right + rejected) / 2
    shared = (predicted & true).sum(1)
    # The set below the line of accuracy, precision and recall.
    below = [((predicted & known) | true).sum(1), (predicted & known).sum(1), true.sum(1)]
    accuracy, precision, recall = (
        float((shared[b > 0] / b[b > 0]).mean()) if (b > 0).any() else 0.0 for b in below
    )
    total = precision + recall
    by_classifier = _classifier_accuracies(predicted, targets, names, groups or {})
    return AttributeScores(
        {name: float(mean[i]) for i, name in enumerate(names) if both[i]},
        float(mean[both].mean()),
        by_classifier,
        sum(by_classifier.values()) / max(len(by_classifier), 1),
        accuracy,
        precision,
        recall,
        2 * precision * recall / total if total else 0.0,
        tuple(name for i, name in enumerate(names) if not both[i]),
        len(predicted),
    )


def _classifier_accuracies(
    predicted: np.ndarray,
    targets: np.ndarray,
    names: Sequence[str],
    groups: Mapping[str, Sequence[int]],
) -> dict[str, float]:
    """The fraction predicted right by each classifier that has an image to score."""
    grouped = {column for columns in groups.values() for column in columns}
    classifiers = {name: [i] for i, name in enumerate(names) if i not in grouped}
    classifiers |= {
        f"{name}: one of {len(columns)}": [*columns] for name, columns in groups.items()
    }
    found = {}
    for name, columns in classifiers.items():
        guess, true = predicted[:, columns], targets[:, columns]
        counted = (true >= 0).all(1)
        if len(columns) > 1:
            counted &= (true > 0).sum(1) == 1
        if counted.any():
            found[name] = float((guess == (true > 0)).all(1)[counted].mean())
    return found


@dataclass(frozen=True, eq=False)
class PreFilter:
    """Which gallery images are looked at for a query, and what that costs.

    Attributes:
        kept: booleans (q, g).
        fraction: of the gallery that is looked at, a mean over queries.
        recall: fraction of the true matches that are.
        confidence: the probability from which an attribute counts as sure.
    """

    kept: np.ndarray
    fraction: float
    recall: float
    confidence: float

    def __str__(self) -> str:
        return (
            f"attributes of a probability of {self.confidence:g} and more leave "
            f"{100 * self.fraction:.1f} % of the gallery, and {100 * self.recall:.2f} % of the "
            "true matches"
        )


def prefilter(
    probabilities: tuple[np.ndarray, np.ndarray],
    query: Labeled,
    gallery: Labeled,
    protocol: str = "market1501",
    confidence: float = 0.9,
) -> PreFilter:
    """Gallery images whose sure attributes contradict a query's sure ones are not looked at.

    An attribute is sure where its probability is at least `confidence` (it is there) or at most
    `1 − confidence` (it is not). A single contradiction discards (Lin et al., Pattern Recognition
    2019, arXiv:1703.07220).

    Args:
        probabilities: of the attributes of query (q, m) and gallery (g, m).
        query, gallery, protocol: as in `rank`; they say which are the true matches.
        confidence: in (0.5, 1].

    Raises:
        InputError: a confidence out of range, or shapes that do not fit.
    """
    asked, searched = map(np.asarray, probabilities)
    checks.within("(0.5, 1]", "the probability of a sure attribute", confidence=confidence)
    if asked.ndim != 2 or searched.ndim != 2 or asked.shape[1] != searched.shape[1]:
        raise InputError(
            "probabilities are (q, m) and (g, m): received "
            f"{asked.shape} and {searched.shape}; both of one model"
        )
    yes = [(x >= confidence).astype(np.float32) for x in (asked, searched)]
    no = [(x <= 1 - confidence).astype(np.float32) for x in (asked, searched)]
    kept = (yes[0] @ no[1].T + no[0] @ yes[1].T) == 0
    rule = Protocol.of(protocol).rule
    labels = codes(query, gallery, kept.shape, not rule.cameras)
    found = [kept[i, hits] for i, (hits, _) in enumerate(matches(rule.one_set, labels))]
    hits = np.concatenate(found) if found else np.zeros(0, bool)
    recall = float(hits.mean()) if len(hits) else 0.0
    return PreFilter(kept, float(kept.mean()), recall, confidence)
