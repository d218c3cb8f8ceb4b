"""Calibrate the match probabilities of the pretrained model, and print their accuracy.

    python tools/calibrate_pretrained.py --foreign=cuhk01-test.csv,cuhk03.csv --write
    python tools/calibrate_pretrained.py --foreign=… --seen=Market-1501 --twin=RUN

The calibration that `--write` puts into the card is fitted on all foreign data sets. The tables use
the protocol below:

- Foreign cameras: fitted on one data set, reported on another, with the pretrained model.
- Seen cameras: query and gallery persons of `--seen` with the model of `--twin`, which was trained
  on the training persons of the same cameras. Fitted on persons with odd numbers, reported on even
  ones, and the reverse; both are pooled.
- 20 galleries of 30 persons; all other images are queries, and half of the weight belongs to
  enrolled persons. Numbers are of all galleries together; intervals are of 200 bootstrap samples
  over persons.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import app, flags

from keras_reid import data, evaluation, inference
from keras_reid.evaluation.calibration import distances
from keras_reid.evaluation.calibration_fitting import draw_searches
from keras_reid.gallery import LIMITS
from keras_reid.models.shipped import FOLDER

FLAGS = flags.FLAGS
flags.DEFINE_string("name", "person-mobilenetv2", "Pretrained model.")
flags.DEFINE_list("foreign", None, "CSV tables of foreign cameras.", required=True)
flags.DEFINE_string("seen", None, "Directory of Market-1501 in its standard layout.")
flags.DEFINE_string("twin", None, "Run folder of the twin, for --seen.")
flags.DEFINE_string("cache", None, "Directory for embeddings, which are computed once.")
flags.DEFINE_bool("write", False, "Write the calibration into the card of the model.")

PERSONS, GALLERIES, SAMPLES = 30, 20, 200
BINS = 10
FPIRS = (0.01, 0.05, 0.1)
SIZES, DISTANCES = (1, 5, 30, 300), (0.3, 0.4, 0.5, 0.6, 0.7)
MARGIN = 0.1  # to the second person, in the table of probabilities
SMALL = (5, 2)  # persons and images of a small gallery
Set = tuple[np.ndarray, np.ndarray]


def main(argv: list[str]) -> None:
    foreign = {Path(table).stem: embedded(table, "csv", None) for table in FLAGS.foreign}
    for name, other in ((a, b) for a in foreign for b in foreign if a != b):
        calibration = evaluation.fit_calibration([foreign[name]], name)
        report(
            f"foreign cameras: fitted on {name}, reported on {other}",
            [(calibration, foreign[other])],
        )
    if FLAGS.seen:
        x, identity = embedded(FLAGS.seen, "market1501", FLAGS.twin)
        odd = identity.astype(int) % 2 == 1
        halves = [(x[half], identity[half]) for half in (odd, ~odd)]
        fitted = [evaluation.fit_calibration([half], "seen cameras") for half in halves]
        report("seen cameras", [(fitted[0], halves[1]), (fitted[1], halves[0])])
    persons = sum(len(np.unique(identity)) for _, identity in foreign.values())
    names = " and ".join(foreign)
    card = evaluation.fit_calibration([*foreign.values()], f"{persons:,} persons of {names}")
    print_probabilities(card)
    if FLAGS.write:
        file = FOLDER / FLAGS.name / "card.json"
        values = json.loads(file.read_text(encoding="utf-8")) | {"calibration": card.to_dict()}
        text = json.dumps(values, indent=2, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")


def embedded(path: str, reader: str, run: str | None) -> Set:
    """Return embeddings and identities of query and gallery images."""
    dataset = data.load(reader, path)
    parts = [part for part in (dataset.query, dataset.gallery) if part is not None]
    images = data.joined(*parts)
    images = images[~images.distractor]
    file = None if FLAGS.cache is None else Path(FLAGS.cache) / f"{Path(path).stem}.npy"
    if file is not None and file.exists():
        return np.load(file), images.identity
    embedder = inference.load(run or FLAGS.name)
    x = embedder.embed(images)
    if file is not None:
        np.save(file, x)
    return x, images.identity


def report(title: str, pairs: Sequence[tuple[evaluation.MatchCalibration, Set]]) -> None:
    """Print the table of calibrations and the images that they are reported on."""
    print(f"\n## {title}\n")
    rows: dict[str, dict[str, str]] = {}
    largest = min(4, *(int(np.unique(s[1], return_counts=True)[1].max()) - 2 for _, s in pairs))
    for images in (1, largest):
        for adapted in (False, True) if images > 1 else (False,):
            column = f"{PERSONS} × {images}" + (", self-calibrated" if adapted else "")
            rows[column] = measured(pairs, PERSONS, images, adapted)
    for adapted in (False, True):
        column = f"{SMALL[0]} × {SMALL[1]}" + (", self-calibrated" if adapted else "")
        rows[column] = measured(pairs, *SMALL, adapted)
    print("| | " + " | ".join(rows) + " |")
    print("| --- |" + " --- |" * len(rows))
    for name in next(iter(rows.values())):
        print(f"| {name} | " + " | ".join(row[name] for row in rows.values()) + " |", flush=True)


def measured(
    pairs: Sequence[tuple[evaluation.MatchCalibration, Set]],
    persons: int,
    images: int,
    adapted: bool,
) -> dict[str, str]:
    """Return the scores of the galleries of one size, with 95 % intervals over persons."""
    parts: list[tuple[np.ndarray, ...]] = []
    rng = np.random.default_rng(0)
    for calibration, (x, identity) in pairs:
        distance, owner, _ = distances(x, identity)
        ordered = x[np.argsort(np.unique(identity, return_inverse=True)[1], kind="stable")]
        first = parts[-1][-1].max() + 1 if parts else 0  # person numbers differ between sets
        for _ in range(GALLERIES):
            searches = draw_searches(distance, owner, persons, images, rng)
            rows = np.setdiff1d(np.arange(len(owner)), searches.query)
            used = calibration.adapt(ordered[rows], owner[rows]) if adapted else calibration
            p = used.probability(searches.distance, searches.second, persons, images)
            own = first + owner[searches.query]
            parts.append(
                (p, searches.distance, searches.right, searches.enrolled, searches.weight, own)
            )
    pooled = Outcome(*map(np.concatenate, zip(*parts, strict=True)))
    mean = pooled.numbers()
    samples = [pooled.numbers(pooled.resampled(rng)) for _ in range(SAMPLES)]
    low, high = np.nanpercentile(samples, [2.5, 97.5], axis=0)
    texts = [f"{m:.3f} ({a:.3f} to {b:.3f})" for m, a, b in zip(mean, low, high, strict=True)]
    return dict(zip(NAMES, texts, strict=True))


NAMES = (
    "calibration error",
    "log loss",
    "`match` of persons who are not enrolled",
    "`possible match` of persons who are not enrolled",
    "`no match` where rank-1 is right",
    "`match` where rank-1 is right",
    "the same by one distance at that false-match rate",
    "ratio of these two",
    "rank-1",
    *(f"DIR at FPIR {100 * rate:g} %, by probability" for rate in FPIRS),
    *(f"DIR at FPIR {100 * rate:g} %, by distance" for rate in FPIRS),
)


class Outcome:
    """Return the probabilities of the searches in galleries of one size, equally weighted."""

    def __init__(
        self,
        p: np.ndarray,
        distance: np.ndarray,
        right: np.ndarray,
        enrolled: np.ndarray,
        weight: np.ndarray,
        owner: np.ndarray,
    ) -> None:
        self.p, self.right, self.enrolled = p, right, enrolled
        self.weight, self.owner = weight, owner
        self.scores = {"probability": -p, "distance": distance}
        self.orders = {name: np.argsort(x, kind="stable") for name, x in self.scores.items()}

    def resampled(self, rng: np.random.Generator) -> np.ndarray:
        """Return how often each query occurs in a bootstrap sample of persons."""
        count = self.owner.max() + 1
        return np.bincount(rng.integers(count, size=count), minlength=count)[self.owner]

    def numbers(self, repeats: np.ndarray | int = 1) -> list[float]:
        """Return the scores NAMES, each query counted `repeats` times."""
        p, right, weight = self.p, self.right, self.weight * repeats
        known, other = weight * self.enrolled, weight * ~self.enrolled
        weight = 0.5 * known / known.sum() + 0.5 * other / other.sum()
        place = np.minimum((p * BINS).astype(int), BINS - 1)
        gap = np.bincount(place, weight * (p - right), minlength=BINS)
        likelihood = np.clip(np.where(right, p, 1 - p), 1e-12, None)
        match, none = p >= LIMITS.match, p < LIMITS.possible
        false, accepted = share(other, match), share(known * right, match)
        near = self.scores["distance"] <= self.limit("distance", other, false)
        return [
            np.abs(gap).sum(),
            -(weight * np.log(likelihood)).sum(),
            false,
            share(other, ~match & ~none),
            share(known * right, none),
            accepted,
            share(known * right, near),
            accepted / share(known * right, near),
            share(known, right),
            *(
                share(known, right & (self.scores[name] <= self.limit(name, other, rate)))
                for name in self.scores
                for rate in FPIRS
            ),
        ]

    def limit(self, name: str, weight: np.ndarray, rate: float) -> float:
        """Return the largest score that accepts at most this fraction of the weight."""
        order = self.orders[name]
        passed = np.cumsum(weight[order]) <= rate * weight.sum() + 1e-9
        return float(self.scores[name][order[passed.sum() - 1]]) if passed.any() else -np.inf


def share(weight: np.ndarray, chosen: np.ndarray) -> float:
    """Return the fraction of the weight of the selected searches."""
    return float((weight * chosen).sum() / max(weight.sum(), 1))


def print_probabilities(calibration: evaluation.MatchCalibration) -> None:
    """Print the probability at some distances, for galleries of several sizes."""
    print(f"\n## Probability at a distance, the second person {MARGIN:g} farther\n")
    print("| distance | " + " | ".join(f"{n:,} persons" if n > 1 else "1:1" for n in SIZES) + " |")
    print("| --- |" + " --- |" * len(SIZES))
    for d in DISTANCES:
        row = [
            float(calibration.probability(d, np.inf if n == 1 else d + MARGIN, n, 1)) for n in SIZES
        ]
        print(f"| {d:g} | " + " | ".join(f"{100 * p:.0f} %" for p in row) + " |")


if __name__ == "__main__":
    app.run(main)
