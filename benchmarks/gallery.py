"""Search in a gallery: exact and approximate, against faiss, in one run.

    python benchmarks/gallery.py --rows=200000 --hnsw
    python benchmarks/gallery.py --rows=1000000

Draws clustered unit embeddings, 50 images per person, with the distances of a trained
embedder. Queries are other images of the same people. The contestants take turns. Times are of
whole batches of queries. Recall is the retrieved fraction of the k nearest rows of the exact
search. The peers need `pip install ".[gallery]"`.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import faiss
import numpy as np
import tensorflow as tf

from keras_reid.gallery.approximate import InvertedFile
from keras_reid.gallery.vectors import QUERIES, Vectors

PERSON = 50  # images of one
GOALS = {
    "exact / faiss flat": 3.0,
    "exact / product alone": 0.85,
    "approximate / faiss flat": 10.0,
}


def people(rows: int, width: int, spread: float) -> np.ndarray:
    """Embeddings of length 1: a direction for each person, and noise `spread` times as long."""
    centers = np.random.default_rng(0).standard_normal((max(1, rows // PERSON), width), np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    random = np.random.default_rng(1)
    x = np.empty((rows, width), np.float32)
    for start in range(0, rows, 2**16):
        part = centers[random.integers(len(centers), size=min(2**16, rows - start))]
        noise = random.standard_normal(part.shape, np.float32)
        part += spread / width**0.5 * noise
        x[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return x


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Return the fraction of the true neighbors that were retrieved."""
    pairs = zip(found.tolist(), true.tolist(), strict=True)
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in pairs]))


def drawn(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return rows, and queries that are other images of the same persons."""
    x = people(options.rows + options.queries, options.width, options.spread)
    return x[: options.rows], x[options.rows :]


def graph(x: np.ndarray, queries: np.ndarray, true: np.ndarray, goal: float) -> faiss.Index:
    """HNSW with a search wide enough for the recall, or the widest tried."""
    start = time.perf_counter()
    index = faiss.IndexHNSWFlat(x.shape[1], 32)
    index.add(x)
    print(f"HNSW: {time.perf_counter() - start:.0f} s to build", flush=True)
    index.hnsw.efSearch = 16
    while recall(index.search(queries, true.shape[1])[1], true) < goal:
        index.hnsw.efSearch *= 2
        if index.hnsw.efSearch >= 1024:
            break
    return index


def main() -> None:
    """Print queries per second and recall of each, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spread", type=float, default=0.7)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--hnsw", action="store_true", help="also faiss HNSW, built for minutes")
    options = parser.parse_args()
    rows, k = options.rows, options.k

    x, queries = drawn(options)

    vectors = Vectors()
    vectors.append(x)
    vectors.nearest(queries[:1], 1)  # from here on the blocks are tensors
    blocks = vectors.blocks

    @tf.function
    def highest(part: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(tf.matmul(block, part, transpose_b=True), axis=0)

    @tf.function
    def plain(part: tf.Tensor, block: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.math.top_k(tf.matmul(part, block, transpose_b=True), k)

    parts = [tf.constant(queries[i : i + QUERIES]) for i in range(0, len(queries), QUERIES)]

    def product() -> None:
        for part in parts:
            for block in blocks:
                highest(part, block).numpy()

    def matmul_and_top_k() -> None:
        for part in parts:
            for block in blocks:
                plain(part, block)[1].numpy()

    flat = faiss.IndexFlatL2(options.width)
    flat.add(x)
    start = time.perf_counter()
    ours = InvertedFile.build(vectors, np.arange(rows), options.recall)
    print(
        f"inverted file: {time.perf_counter() - start:.0f} s to build, {ours.numbers['probes']} of "
        f"{ours.index.nlist} lists, {ours.numbers['wide']} candidates for each, recall of rows "
        f"that were held back {ours.numbers['recall']:.4f}",
        flush=True,
    )
    contestants: dict[str, Callable[[], np.ndarray | None]] = {
        "product alone": product,
        "exact": lambda: vectors.nearest(queries, k)[0],
        "matmul + top_k": matmul_and_top_k,
        "faiss flat": lambda: flat.search(queries, k)[1],
        "approximate": lambda: vectors.measured(queries, ours.search(queries, k, None))[0][:, :k],
    }
    true = vectors.nearest(queries, k)[0]
    if options.hnsw:
        hnsw = graph(x, queries, true, options.recall)
        contestants["faiss HNSW"] = lambda: hnsw.search(queries, k)[1]

    times: dict[str, list[float]] = {name: [] for name in contestants}
    recalls: dict[str, float] = {}
    for turn in range(options.rounds + 1):  # the first one warms up
        for name, work in contestants.items():
            start = time.perf_counter()
            found = work()
            if turn:
                times[name].append(time.perf_counter() - start)
            if found is not None:
                recalls[name] = recall(found, true)
    speed = {name: len(queries) / statistics.median(t) for name, t in times.items()}
    print(
        f"{rows:,} × {options.width}, {len(queries)} queries, k={k}, faiss {faiss.__version__}, "
        f"TensorFlow {tf.__version__}, {faiss.omp_get_max_threads()} threads"
    )
    for name, value in speed.items():
        found_share = f"  recall {recalls[name]:.4f}" if name in recalls else ""
        print(f"{name:<15} {value:9,.0f} queries/s{found_share}")
    for pair, goal in GOALS.items():
        first, second = pair.split(" / ")
        print(f"{pair}: {speed[first] / speed[second]:.2f}, goal {goal}")


if __name__ == "__main__":
    main()
