"""Every re-ranker on the same features: scores, seconds, and memory, each in a separate process.

`python benchmarks/rerankers.py QUERY.npz GALLERY.npz` reads what
`python evaluate.py --run=RUN --save_features=FOLDER` writes. It prints a table of scores, and the
clusters of the gallery. Seconds are those of the re-ranking alone.
"""

import argparse
import json
import subprocess
import sys
import time

from reranking import memory

from keras_reid import evaluation
from keras_reid.reranking import RERANKERS


def alone(name: str, query: str, gallery: str) -> None:
    """Scores and costs of one re-ranker, as JSON."""
    q, g = map(evaluation.load_features, (query, gallery))
    import tensorflow as tf

    tf.matmul(tf.ones((64, 64)), tf.ones((64, 64)))
    both = q.features["embedding"], g.features["embedding"]
    seconds = 0.0
    with memory() as more:
        for _ in range(2 if name != "none" else 0):  # the first traces
            start = time.perf_counter()
            both = RERANKERS[name](q.features["embedding"], g.features["embedding"]).matrix()
            seconds = time.perf_counter() - start
    result = evaluation.rank(both, q, g)
    scores = {"rank-1": result.rank(1), "mAP": result.mAP, "mINP": result.mINP}
    low, high = result.interval("mAP")
    print(json.dumps({**scores, "low": low, "high": high, "s": seconds, "GiB": more()}))


def groups(path: str) -> None:
    """Print the scores of clusterings of the images of one file."""
    stored = evaluation.load_features(path)
    for method, eps in (("dbscan", 0.4), ("dbscan", 0.5), ("dbscan", 0.6), ("agglomerative", 0.8)):
        start = time.perf_counter()
        found = evaluation.cluster(stored.features["embedding"], method, eps)
        seconds = time.perf_counter() - start
        s = evaluation.cluster_scores(stored.identity, found)
        scores = {"pair F": s.pair_f1, "B-cubed": s.bcubed_f1, "NMI": s.nmi}
        text = "  ".join(f"{name} {100 * value:5.1f}" for name, value in scores.items())
        text += f"  {s.clusters} clusters of {s.persons} persons"
        text += f", {s.noise} of {s.images} images in none"
        print(f"{method:<14} eps {eps}  {text}, {seconds:.1f} s")


def main() -> None:
    """Print one row for each re-ranker, then groups."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("query")
    parser.add_argument("gallery")
    parser.add_argument("--group", nargs="*", default=[], help="Further files to cluster.")
    parser.add_argument("--alone")
    options = parser.parse_args()
    if options.alone:
        alone(options.alone, options.query, options.gallery)
        return
    for name in ("none", *RERANKERS):
        command = [sys.executable, __file__, f"--alone={name}", options.query, options.gallery]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        scores = "  ".join(f"{key} {100 * row[key]:5.1f}" for key in ("rank-1", "mAP", "mINP"))
        interval = f"({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        costs = f"  {row['s']:6.2f} s  {row['GiB']:.2f} GiB" if name != "none" else ""
        print(f"{name:<14} {scores}  mAP {interval}{costs}")
    for path in (options.gallery, *options.group):
        print(path)
        groups(path)


if __name__ == "__main__":
    main()
