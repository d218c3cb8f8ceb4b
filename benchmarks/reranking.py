"""k-reciprocal re-ranking against the matrix product alone and against a dense NumPy one.

`python benchmarks/reranking.py` alternates the contestants, each in a separate process so that
its peak of memory is its own, and prints medians, ratios and how all grows with the images.
`--size=market1501` takes ten minutes for the dense peer alone; `--size=msmt17 --peers=product`
needs 6 GB. The features are drawn: persons of about 25 images, 2,048 numbers, at length 1.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

SIZES = {
    "small": (800, 4_000),
    "half": (1_684, 7_956),
    "market1501": (3_368, 15_913),
    "msmt17": (11_659, 82_161),
}
WIDTH = 2_048
GOALS = {"small": 8, "market1501": 12}  # times as fast as the dense peer
GIB = 2**30


def people(q: int, g: int) -> np.ndarray:
    """Features (q + g, d), drawn in blocks to limit the peak memory."""
    random = np.random.default_rng(0)
    persons = random.standard_normal(((q + g) // 25, WIDTH), np.float32)
    x = np.empty((q + g, WIDTH), np.float32)
    for start in range(0, q + g, 4096):
        block = x[start : start + 4096]
        block[:] = 1.5 * random.standard_normal(block.shape, np.float32)
        block += persons[random.integers(len(persons), size=len(block))]
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return x


def dense(x: np.ndarray, q: int) -> np.ndarray:
    """Compute the formulas on whole matrices in float32, one image after the other."""
    return _dense(x, q, remember=True)


def published(x: np.ndarray, q: int) -> np.ndarray:
    """Return the same without a cache of the neighbors of neighbors, as in public codes."""
    return _dense(x, q, remember=False)


def _dense(
    x: np.ndarray,
    q: int,
    remember: bool,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> np.ndarray:
    norms = np.einsum("nd,nd->n", x, x)
    squared = norms[:, None] + norms - 2 * (x @ x.T)
    squared /= squared.max(axis=1, keepdims=True)
    np.fill_diagonal(squared, -1)
    rank = np.argsort(squared, axis=1).astype(np.int32)
    np.fill_diagonal(squared, 0)
    count, half = len(x), round(k1 / 2) + 1

    def reciprocal(i: int, k: int) -> np.ndarray:
        near = rank[i, :k]
        return near[(rank[near, :k] == i).any(axis=1)]

    lists = [reciprocal(i, half) for i in range(count)] if remember else None
    v = np.zeros((count, count), np.float32)
    for i in range(count):
        near = reciprocal(i, k1 + 1)
        nearer = [reciprocal(j, half) if lists is None else lists[j] for j in near]
        accepted = [n for n in nearer if 3 * len(np.intersect1d(n, near)) > 2 * len(n)]
        members = np.unique(np.concatenate([near, *accepted]))
        weight = np.exp(-squared[i, members])
        v[i, members] = weight / weight.sum()
    if k2 > 1:
        mean = np.zeros_like(v)
        for i in range(count):
            mean[i] = v[rank[i, :k2]].mean(axis=0)
        v = mean
    holders = [np.flatnonzero(v[:, j]) for j in range(count)]
    result = np.empty((q, count - q), np.float32)
    for i in range(q):
        shared = np.zeros(count, np.float32)
        for j in np.flatnonzero(v[i]):
            shared[holders[j]] += np.minimum(v[i, j], v[holders[j], j])
        jaccard = 1 - shared / (2 - shared)
        result[i] = (1 - lambda_value) * jaccard[q:] + lambda_value * squared[i, q:]
    return result


def ours(x: np.ndarray, q: int) -> np.ndarray | None:
    from keras_reid.reranking import RERANKERS

    made = RERANKERS["k_reciprocal"](x[:q], x[q:])
    if len(x) < 30_000:
        return made.matrix()
    for start in range(0, q, 64):  # as evaluation.rank reads it
        made.rows(start, start + 64)
    return None


def graph(x: np.ndarray, q: int) -> np.ndarray:
    from keras_reid.reranking import k_reciprocal

    return k_reciprocal(x[:q], x[q:])


def product(x: np.ndarray, q: int) -> None:
    """x · xᵀ in blocks of the same size, kept nowhere, in the faster order."""
    import tensorflow as tf

    x = tf.constant(x)
    step = max(512, 2**25 // len(x))
    for start in range(0, len(x), step):
        tf.matmul(x, x[start : start + step], transpose_b=True)


CONTESTANTS = {
    "product": product,
    "ours": ours,
    "tf.function": graph,
    "dense": dense,
    "published": published,
}
SLOW = ("dense", "published")


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / GIB


@contextmanager
def memory() -> Iterator[Callable[[], float]]:
    """Measure the peak memory of a block above its start in GiB, sampled every 10 ms."""
    before, peak, stop = resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.01):
            peak = max(peak, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: peak - before
    finally:
        stop.set()
        watcher.join()


def alone(name: str, size: str, rounds: int, out: str | None) -> None:
    """One contestant: seconds of each round, the first not counted where there are more."""
    q, g = SIZES[size]
    x = people(q, g)
    import tensorflow as tf

    tf.matmul(tf.ones((64, 64)), tf.ones((64, 64)))  # what TensorFlow itself needs
    seconds, result = [], None
    with memory() as more:
        for _ in range(rounds):
            result = None  # the last one's memory
            start = time.perf_counter()
            result = CONTESTANTS[name](x, q)
            seconds.append(time.perf_counter() - start)
    if out and result is not None:
        np.save(out, result[:: max(1, q // 200)])
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "above": more(), "total": total}))


def run(name: str, size: str, rounds: int, out: str | None = None) -> dict:
    command = [sys.executable, __file__, f"--alone={name}", f"--size={size}", f"--rounds={rounds}"]
    command += [f"--out={out}"] if out else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def growth(picture: str) -> None:
    """Measure keras_reid at every size: seconds, and peak memory without the features, over N."""
    numbers, seconds, memory = [], [], []
    for size, (q, g) in SIZES.items():
        done = run("ours", size, 1 if size == "msmt17" else 2)
        numbers.append(q + g)
        seconds.append(min(done["seconds"]))
        memory.append(done["above"])
        own = 4 * (q + g) * WIDTH / GIB
        pair = 1e9 * seconds[-1] / (q + g) ** 2
        text = f"N = {q + g:,}: {seconds[-1]:.2f} s, {pair:.1f} ns per pair"
        print(f"{text}, {memory[-1]:.2f} GiB without features of {own:.2f} GiB", flush=True)
    draw(picture, numbers, seconds, memory)


def draw(picture: str, numbers: list[int], seconds: list[float], memory: list[float]) -> None:
    """Draw memory over N with that of one whole matrix, and seconds over N with growth as N²."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    whole = [4 * n**2 / GIB for n in numbers]
    axes[0].loglog(numbers, memory, "o-", label="keras_reid, without the features")
    axes[0].loglog(numbers, whole, "--", label="one N × N matrix of float32")
    axes[0].set(xlabel="N = queries + gallery", ylabel="GiB")
    square = [seconds[-1] * (n / numbers[-1]) ** 2 for n in numbers]
    axes[1].loglog(numbers, seconds, "o-", label="keras_reid")
    axes[1].loglog(numbers, square, "--", label="as N²")
    axes[1].set(xlabel="N = queries + gallery", ylabel="seconds")
    for axis in axes:
        axis.legend(frameon=False)
    figure.savefig(picture, dpi=110)


def main() -> None:
    """Print a table of each contestant's seconds and memory, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--peers", default="product,tf.function,dense,published")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each, alternating")
    parser.add_argument("--rounds", type=int, default=2, help="of each process")
    parser.add_argument("--growth", help="new picture of seconds and memory over four sizes")
    parser.add_argument("--alone", choices=CONTESTANTS)
    parser.add_argument("--out")
    options = parser.parse_args()
    if options.alone:
        alone(options.alone, options.size, options.rounds, options.out)
        return
    if options.growth:
        growth(options.growth)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, folder)


def compare(options: argparse.Namespace, folder: str) -> None:
    """Run the contestants in turns and compare samples of their results in the folder."""
    names = ["ours", *filter(None, options.peers.split(","))]
    found: dict[str, list[dict]] = {name: [] for name in names}
    for repeat in range(options.repeats):
        for name in names:
            if name in SLOW and repeat and options.size != "small":
                continue  # minutes each
            rounds = 1 if name in SLOW else options.rounds
            found[name].append(run(name, options.size, rounds, f"{folder}/{name}.npy"))
            last = found[name][-1]
            print(f"{name}: {last['seconds']}", file=sys.stderr, flush=True)
    q, g = SIZES[options.size]
    print(f"{q:,} queries, {g:,} gallery images, {WIDTH:,} numbers each, {os.cpu_count()} cores")
    median = {n: statistics.median(min(r["seconds"]) for r in runs) for n, runs in found.items()}
    for name, runs in found.items():
        above, total = (max(r[key] for r in runs) for key in ("above", "total"))
        print(f"{name:<12} {median[name]:8.2f} s  {above:5.2f} GiB more, {total:5.2f} GiB in total")
    for name in names[1:]:
        print(f"{name} / ours = {median[name] / median['ours']:.2f}")
    if "product" in median:
        print(f"ours / product = {median['ours'] / median['product']:.2f}, goal: <= 1.6")
    if "dense" in median:
        first, second = (np.load(f"{folder}/{name}.npy") for name in ("ours", "dense"))
        differ = (np.abs(first - second) > 1e-5).mean()
        print(f"goal: published / ours >= {GOALS.get(options.size, 12)}")
        print(f"{100 * differ:.4f} % of the distances differ by more than 1e-5, by ties in float32")


if __name__ == "__main__":
    main()
