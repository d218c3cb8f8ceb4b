"""Growth of time and memory: each cost at several sizes, with its exponent.

    python benchmarks/costs.py
    python benchmarks/costs.py --only="exact search,full re-ranking" --picture=costs.png
    python benchmarks/costs.py --paper=1000000000

Each cost is measured in a separate process, to get its peak memory: embedding n synthetic
images; exact and approximate search of one query at a time among n rows; re-ranking the shortlist
of a query; k-reciprocal re-ranking of n images; aligned distances of images with s stripes; a
training step of m members with mutual learning. Seconds are the median of three turns. The
exponent is the slope of log seconds over log size, by least squares.

The model of a cost is a sum of terms in n with nonnegative factors, in seconds. The factors are
fitted to all sizes but the largest (least squares of relative errors). The largest size is two to
three times as large, and the table has the ratio of measured to predicted seconds. The cost of
approximate search depends on r, the number of rows compared with a query: the
centers of all lists, and the codes in the lists that a recall of 99 % needs.

`--paper=N` measures nothing. It prints the estimated memory, disk and number of machines for N
embeddings.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy.optimize import nnls

TURNS = 3
WIDTH = 512
QUERIES = 64
Work = Callable[[], object]


class Counted(NamedTuple):
    """Work with a cost that depends on another number than the size."""

    work: Work
    amount: float


def people(rows: int, width: int = WIDTH) -> np.ndarray:
    """Embeddings of length 1 of persons with 25 images each."""
    random = np.random.default_rng(0)
    persons = random.standard_normal((max(1, rows // 25), width), np.float32)
    x = 0.7 * random.standard_normal((rows, width), np.float32)
    x += persons[random.integers(len(persons), size=rows)]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def embedding(n: int) -> Work:
    from keras_reid import data, inference
    from keras_reid.data import synthetic

    folder = Path(tempfile.mkdtemp()) / "drawn"
    synthetic.generate(folder, 20, 20)
    files = sorted(str(file) for file in folder.rglob("*.jpg"))
    paths = np.array((files * (n // len(files) + 1))[:n])
    images = data.PersonImages(paths, np.zeros(n, int), None)
    embedder = inference.load()
    embedder.embed(images[:256])
    return lambda: embedder.embed(images)


def exact(n: int) -> Work:
    from keras_reid.gallery.vectors import Vectors

    vectors, queries = Vectors(), people(QUERIES)
    vectors.append(people(n))
    return lambda: [vectors.nearest(queries[i : i + 1], 10) for i in range(QUERIES)]


def approximate(n: int) -> Counted:
    from keras_reid.gallery.approximate import InvertedFile
    from keras_reid.gallery.vectors import Vectors

    x, queries = people(n), people(QUERIES)
    vectors = Vectors()
    vectors.append(x)
    vectors.nearest(queries[:1], 1)
    index = InvertedFile.build(vectors, np.arange(n), 0.99)
    lists = index.index.nlist
    return Counted(
        lambda: [
            vectors.measured(query[None], index.search(query[None], 10, None)) for query in queries
        ],
        lists + index.numbers["probes"] * n / lists,
    )


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

    nets = [models.build("mobilenetv2", 100, (128, 64), weights="none") for _ in range(max(1, m))]
    learner = nets[0] if m == 1 else training.MutualLearner(nets)
    more = {} if m == 1 else {"distillation_loss": {"logits": losses.LogitDistillationLoss()}}
    learner.compile(
        keras.optimizers.Adam(),
        loss={"logits": losses.IdentityLoss(), "features": losses.TripletHardLoss()},
        **more,
    )
    images = np.random.default_rng(0).integers(0, 256, (32, 128, 64, 3), np.uint8)
    labels = {"identity": np.repeat(np.arange(8, dtype=np.int32), 4)}
    return lambda: [learner.train_on_batch(images, labels) for _ in range(4)]


# Bytes in memory and on disks of n rows of d numbers. HNSW: each row has up to 2 M links of 4 bytes
# in the lowest level, and Milvus's own choice is M = 18. DISKANN: codes in memory, an eighth of the
# rows by Milvus's own choice, and on disks the rows with some 60 links of 4 bytes.
INDEXES: dict[str, tuple[Callable[[float, int], float], Callable[[float, int], float]]] = {
    "FLAT, IVF_FLAT (float32)": (lambda n, d: 4 * n * d, lambda n, d: 4 * n * d),
    "IVF_SQ8 (a byte a number)": (lambda n, d: n * d, lambda n, d: 5 * n * d),
    "HNSW": (lambda n, d: n * (4 * d + 8 * 18), lambda n, d: n * (4 * d + 8 * 18)),
    "DISKANN": (lambda n, d: n * d / 2, lambda n, d: n * (4 * d + 4 * 60)),
}
MACHINE = 256e9  # bytes of memory of one
USED = 0.7  # of it, by rows


def on_paper(n: float, d: int) -> None:
    print(f"| {n:,.0f} rows of {d} numbers | memory, TB | disk, TB | machines of 256 GB |")
    print("| --- | --- | --- | --- |")
    for name, (memory, disk) in INDEXES.items():
        machines = math.ceil(memory(n, d) / (USED * MACHINE))
        print(f"| {name} | {memory(n, d) / 1e12:.2f} | {disk(n, d) / 1e12:.2f} | {machines} |")


class Cost(NamedTuple):
    """Measured work, its sizes, and the terms of its model by their notation."""

    work: Callable[[int], Work | Counted]
    sizes: tuple[int, ...]
    unit: str
    terms: Mapping[str, Callable[[np.ndarray], np.ndarray]]


ONE, LINEAR, SQUARE = {"1": np.ones_like}, {"n": np.positive}, {"n²": np.square}
# Of an inverted file: the centers of its lists, and the codes in those lists that 99 % needs.
COMPARED = {"r": np.positive}
COSTS = {
    "embedding": Cost(embedding, (500, 1_000, 2_000, 4_000), "images", ONE | LINEAR),
    "exact search": Cost(exact, (25_000, 50_000, 100_000, 200_000), "rows", ONE | LINEAR),
    "approximate search": Cost(
        approximate, (50_000, 100_000, 200_000, 400_000), "rows", ONE | COMPARED
    ),
    "shortlist re-ranking": Cost(
        shortlist, (100, 300, 1_000, 3_000), "rows of the shortlist", ONE | LINEAR | SQUARE
    ),
    "full re-ranking": Cost(full, (2_500, 5_000, 10_000, 20_000), "images", LINEAR | SQUARE),
    "aligned distances": Cost(stripes, (4, 8, 16, 32), "stripes", LINEAR | SQUARE),
    "mutual learning": Cost(members, (1, 2, 3, 4), "members", ONE | LINEAR),
}


def fitted(cost: Cost, amounts: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """Fit the factor of each term to all sizes but the last."""
    terms = np.stack([term(np.array(amounts, float)) for term in cost.terms.values()], axis=1)
    relative = terms / np.array(seconds)[:, None]
    factors, _ = nnls(relative[:-1], np.ones(len(seconds) - 1))
    return dict(zip(cost.terms, factors.tolist(), strict=True))


def predicted(cost: Cost, factors: Mapping[str, float], amount: float) -> float:
    return float(sum(factors[name] * term(np.array(amount)) for name, term in cost.terms.items()))


def written(factors: Mapping[str, float]) -> str:
    """Return the model as text, such as 0.2 + 3e-06 n."""
    used = [(name, factor) for name, factor in factors.items() if factor]
    return " + ".join(
        f"{factor:.2g}" + (f" {name}" if name != "1" else "") for name, factor in used
    )


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def alone(name: str, size: int) -> None:
    """Print the amount of work, the median seconds of three turns after a warm-up, the peak MiB
    above the start, and the MiB at the start."""
    made = COSTS[name].work(size)
    work, amount = made if isinstance(made, Counted) else (made, size)
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
    print(json.dumps([amount, statistics.median(seconds), max(0.0, peak - before), before]))


def main() -> None:
    """Print a table for each cost, and draw the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="names, separated by commas")
    parser.add_argument("--picture", help="new picture of all")
    parser.add_argument("--paper", type=float, help="rows of a gallery that is not measured")
    parser.add_argument("--alone", nargs=2)
    options = parser.parse_args()
    if options.paper:
        on_paper(options.paper, WIDTH)
        return
    if options.alone:
        alone(options.alone[0], int(options.alone[1]))
        return
    names = options.only.split(",") if options.only else list(COSTS)
    measured: dict[str, tuple[list[float], list[float]]] = {}
    print("| cost | sizes | seconds | grows as | MiB in all | model | of it at the largest |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in names:
        cost = COSTS[name]
        amounts, seconds, memory = [], [], []
        for size in cost.sizes:
            command = [sys.executable, __file__, "--alone", name, str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            amount, taken, more, before = json.loads(done.stdout.splitlines()[-1])
            amounts.append(amount)
            seconds.append(taken)
            memory.append(before + more)
        measured[name] = amounts, seconds
        factors = fitted(cost, amounts, seconds)
        counted = (
            "" if amounts == [*cost.sizes] else f"; r = {', '.join(f'{r:,.0f}' for r in amounts)}"
        )
        row = (
            ", ".join(f"{size:,}" for size in cost.sizes) + f" {cost.unit}{counted}",
            ", ".join(f"{taken:.3g}" for taken in seconds),
            f"n^{np.polyfit(np.log(cost.sizes), np.log(seconds), 1)[0]:.2f}",
            ", ".join(f"{mib:,.0f}" for mib in memory),
            written(factors),
            f"{seconds[-1] / predicted(cost, factors, amounts[-1]):.2f}",
        )
        print(f"| {name} | {' | '.join(row)} |", flush=True)
    if options.picture:
        draw(measured, options.picture)


def draw(measured: Mapping[str, tuple[Sequence[float], Sequence[float]]], file: str) -> None:
    """Draw seconds over size with logarithmic axes, and the model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = 4
    rows = -(-len(measured) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3 * columns, 2.6 * rows), layout="constrained", squeeze=False
    )
    for axis, (name, (amounts, seconds)) in zip(axes.flat, measured.items(), strict=False):
        cost = COSTS[name]
        factors = fitted(cost, amounts, seconds)
        axis.loglog(cost.sizes, seconds, "o", color="C0")
        axis.loglog(cost.sizes, [predicted(cost, factors, n) for n in amounts], color="C0")
        axis.set(title=name, xlabel=cost.unit, ylabel="seconds")
        axis.minorticks_off()
        axis.set_xticks(
            cost.sizes, [f"{size / 1000:g}k" if size > 999 else size for size in cost.sizes]
        )
        axis.set_yticks(seconds, [f"{taken:.2g}" for taken in seconds])
        axis.text(0.05, 0.88, written(factors), transform=axis.transAxes, fontsize="small")
    for axis in axes.flat[len(measured) :]:
        axis.axis("off")
    figure.savefig(file, dpi=90)


if __name__ == "__main__":
    main()
