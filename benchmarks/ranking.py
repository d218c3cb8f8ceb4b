"""Scoring a distance matrix against argsorting it, at the size of Market-1501.

`python benchmarks/ranking.py` alternates the two on the same matrix and prints the medians and
their ratio. The peer only orders the rows: masks, CMC and AP, which every evaluation adds to it,
are in our time and not in the peer's.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from keras_reid.evaluation import Labels, rank

IDENTITIES, CAMERAS, GALLERY = 751, 6, 19_281
GOAL = 0.45


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print milliseconds per query of each, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    random = np.random.default_rng(0)
    matrix = random.random((options.queries, GALLERY), np.float32)
    sizes = options.queries, GALLERY
    labels = [
        Labels(random.integers(IDENTITIES, size=n), random.integers(CAMERAS, size=n)) for n in sizes
    ]
    contestants: dict[str, Callable[[], object]] = {
        "rank": lambda: rank(matrix, *labels),
        "argsort": lambda: np.argsort(matrix, axis=1),
        "stable argsort": lambda: np.argsort(matrix, axis=1, kind="stable"),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, work in contestants.items():
            times[name].append(seconds(work))

    median = {name: statistics.median(values) for name, values in times.items()}
    print(f"{options.queries} queries, {GALLERY} gallery images, NumPy {np.__version__}")
    for name, value in median.items():
        print(f"{name:<14}  {1000 * value / options.queries:7.3f} ms per query")
    for peer in ("argsort", "stable argsort"):
        print(f"rank / {peer} = {median['rank'] / median[peer]:.2f}")
    print(f"goal: rank / argsort <= {GOAL}")


if __name__ == "__main__":
    main()
