"""How time and memory grow: each cost at several sizes, and the exponent that they follow.

    python benchmarks/costs.py
    python benchmarks/costs.py --only="exact search,full re-ranking" --picture=costs.png

Measured are, each in a process of its own so that its peak of memory is its own: embedding n drawn
images; exact and approximate search of one query at a time among n rows; re-ranking the shortlist
of a query; k-reciprocal re-ranking of n images; aligned distances of images with s stripes; a
training step of m members that learn from each other. Seconds are the median of three turns; the
exponent is the slope of log seconds over log size, by least squares.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

TURNS = 3
WIDTH = 512
QUERIES = 64
Work = Callable[[], object]


def people(rows: int, width: int = WIDTH) -> np.ndarray:
    """Embeddings of length 1 of persons with 25 images each."""
    random = np.random.default_rng(0)
    persons = random.standard_normal((max(1, rows // 25), width), np.float32)
    x = 1.5 * random.standard_normal((rows, width), np.float32)
    x += persons[random.integers(len(persons), size=rows)]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def embedding(n: int) -> Work:
    from keras_reid import data, models
    from keras_reid.data import synthetic

    folder = Path(tempfile.mkdtemp()) / "drawn"
    synthetic.generate(folder, 20, 20)
    files = sorted(str(file) for file in folder.rglob("*.jpg"))
    paths = np.array((files * (n // len(files) + 1))[:n])
    images = data.PersonImages(paths, np.zeros(n, int), None)
    embedder = models.Embedder(models.pretrained())
    embedder.embed(images[:256])
    return lambda: embedder.embed(images)


def exact(n: int) -> Work:
    from keras_reid.gallery.exact import Vectors

    vectors, queries = Vectors(WIDTH), people(QUERIES)
    vectors.append(people(n))
    return lambda: [vectors.nearest(queries[i : i + 1], 10) for i in range(QUERIES)]


def approximate(n: int) -> Work:
    from keras_reid.gallery.approximate import InvertedFile
    from keras_reid.gallery.exact import Vectors

    x, queries = people(n), people(QUERIES)
    vectors = Vectors(WIDTH)
    vectors.append(x)
    vectors.nearest(queries[:1], 1)
    index = InvertedFile.build(vectors, np.arange(n), 0.99)
    return lambda: [index.search(queries[i : i + 1], 10, None) for i in range(QUERIES)]


def shortlist(n: int) -> Work:
    from keras_reid.reranking import k_reciprocal

    x = people(n + QUERIES)
    return lambda: [k_reciprocal(x[i : i + 1], x[QUERIES:]) for i in range(8)]


def full(n: int) -> Work:
    from keras_reid.reranking import k_reciprocal

    x = people(n)
    return lambda: k_reciprocal(x[: n // 6], x[n // 6 :])


def stripes(s: int) -> Work:
    from keras_reid import evaluation

    random = np.random.default_rng(0)
    query, gallery = (random.standard_normal((rows, s, 128), np.float32) for rows in (200, 1000))
    return lambda: evaluation.matrix(query, gallery, "local")


def members(m: int) -> Work:
    import keras

    from keras_reid import losses, models, training

    objective = training.Objective(
        training.LossTerm("identity", losses.IdentityLoss(), "logits"),
        training.LossTerm("metric", losses.TripletHardLoss(), "features"),
    )
    nets = [models.build("mobilenetv2", 100, (128, 64), weights="none") for _ in range(max(1, m))]
    learner = (
        training.Learner(nets[0], objective)
        if m == 1
        else training.MutualLearner(nets, objective, losses.LogitDistillationLoss())
    )
    learner.compile(keras.optimizers.Adam())
    images = np.random.default_rng(0).integers(0, 256, (32, 128, 64, 3), np.uint8)
    labels = {"identity": np.repeat(np.arange(8, dtype=np.int32), 4)}
    return lambda: [learner.train_on_batch(images, labels) for _ in range(4)]


COSTS: dict[str, tuple[Callable[[int], Work], tuple[int, ...], str]] = {
    "embedding": (embedding, (500, 1_000, 2_000, 4_000), "images"),
    "exact search": (exact, (25_000, 50_000, 100_000, 200_000), "rows"),
    "approximate search": (approximate, (25_000, 50_000, 100_000, 200_000), "rows"),
    "shortlist re-ranking": (shortlist, (100, 300, 1_000, 3_000), "rows of the shortlist"),
    "full re-ranking": (full, (2_500, 5_000, 10_000, 20_000), "images"),
    "aligned distances": (stripes, (4, 8, 16, 32), "stripes"),
    "mutual learning": (members, (1, 2, 3, 4), "members"),
}


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def alone(name: str, size: int) -> None:
    """Seconds, the median of three turns after one that does not count, and MiB above before."""
    work = COSTS[name][0](size)
    work()
    before, peak, stop = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds = []
    for _ in range(TURNS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    stop.set()
    watcher.join()
    print(json.dumps([statistics.median(seconds), max(0.0, peak - before), before]))


def main() -> None:
    """Prints a table for each cost, and draws them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--picture", help="new picture of all")
    parser.add_argument("--alone", nargs=2)
    options = parser.parse_args()
    if options.alone:
        alone(options.alone[0], int(options.alone[1]))
        return
    names = options.only.split(",") if options.only else list(COSTS)
    measured: dict[str, tuple[list[int], list[float]]] = {}
    print("| cost | sizes | seconds | grows as | MiB in all |")
    print("| --- | --- | --- | --- | --- |")
    for name in names:
        _, sizes, unit = COSTS[name]
        seconds, memory = [], []
        for size in sizes:
            command = [sys.executable, __file__, "--alone", name, str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            taken, more, before = json.loads(done.stdout.splitlines()[-1])
            seconds.append(taken)
            memory.append(before + more)
        slope = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
        measured[name] = [*sizes], seconds
        row = (
            ", ".join(f"{size:,}" for size in sizes) + f" {unit}",
            ", ".join(f"{taken:.3g}" for taken in seconds),
            f"n^{slope:.2f}",
            ", ".join(f"{mib:,.0f}" for mib in memory),
        )
        print(f"| {name} | {' | '.join(row)} |", flush=True)
    if options.picture:
        draw(measured, options.picture)


def draw(measured: dict[str, tuple[list[int], list[float]]], file: str) -> None:
    """Seconds over size, both logarithmic, and a line of the exponent through each."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = 4
    rows = -(-len(measured) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 2.6 * rows), layout="constrained", squeeze=False
    )
    for axis, (name, (sizes, seconds)) in zip(axes.flat, measured.items(), strict=False):
        slope, level = np.polyfit(np.log(sizes), np.log(seconds), 1)
        axis.loglog(sizes, seconds, "o", color="C0")
        axis.loglog(sizes, np.exp(level) * np.array(sizes, float) ** slope, "-", color="C0")
        axis.set(title=name, xlabel=COSTS[name][2], ylabel="seconds")
        axis.text(0.05, 0.9, f"n^{slope:.2f}", transform=axis.transAxes)
    for axis in axes.flat[len(measured) :]:
        axis.axis("off")
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
