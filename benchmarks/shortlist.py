"""Re-ranking a shortlist for each query alone, against re-ranking the whole test set at once.

`python benchmarks/shortlist.py QUERY.npz GALLERY.npz` reads what `python evaluate.py --run=RUN
--save_features=FOLDER` writes, or other features of this form. Evenly spaced queries search a
gallery in memory. For mAP and rank-1, the other rows follow the shortlist in the order of their
distances. Agreement is the fraction of the first ten results that are also among the first ten when
all queries and the gallery are re-ranked together.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_reid import evaluation, gallery
from keras_reid.nearest.arrays import unit
from keras_reid.reranking import k_reciprocal

FIRST = 10


def main() -> None:
    """Print scores, agreement and milliseconds for shortlists of several lengths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("query")
    parser.add_argument("gallery")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--shortlists", type=int, nargs="+", default=[100, 300, 1000, 3000])
    options = parser.parse_args()

    q, g = map(evaluation.load_features, (options.query, options.gallery))
    x, y = unit(q.features["embedding"]), unit(g.features["embedding"])
    chosen = np.unique(np.linspace(0, len(x) - 1, options.queries).round().astype(int))
    labels = evaluation.Labels(q.identity[chosen], q.camera[chosen]), g

    def line(name: str, distances: np.ndarray, whole: np.ndarray, ms: float) -> None:
        result = evaluation.rank(distances, *labels)
        ours, theirs = (np.argsort(d, 1, "stable")[:, :FIRST].tolist() for d in (distances, whole))
        same = [len(set(a) & set(b)) / FIRST for a, b in zip(ours, theirs, strict=True)]
        print(
            f"{name:<22} mAP {100 * result.mAP:5.2f}  rank-1 {100 * result.rank(1):5.2f}  "
            f"agreement {100 * np.mean(same):5.1f} %  {ms:7.1f} ms per query",
            flush=True,
        )

    plain = evaluation.matrix(x[chosen], y)
    start = time.perf_counter()
    whole = k_reciprocal(x, y)[chosen]
    each = 1000 * (time.perf_counter() - start) / len(x)
    print(f"{len(chosen)} of {len(x):,} queries, {len(y):,} gallery images, {x.shape[1]} numbers")
    line("distances", plain, whole, 0)
    line("whole", whole, whole, each)
    names = [str(i) for i in range(len(y))]
    with gallery.open("memory:") as people:
        people.enrol(y, names, images=names, model_fingerprint="benchmark")
        for length in options.shortlists:
            length = min(length, len(y))  # noqa: PLW2901
            find = {"rerank": "k_reciprocal", "shortlist": length}
            people.search(x[:2], length, **find)  # traces
            start = time.perf_counter()
            found = people.search(x[chosen], length, **find)
            ms = 1000 * (time.perf_counter() - start) / len(chosen)
            distances = plain.copy()
            for row, hits in zip(distances, found, strict=True):
                row[[int(hit.image) for hit in hits]] = [hit.reranked - 100 for hit in hits]
            line(f"shortlist of {length:,}", distances, whole, ms)


if __name__ == "__main__":
    main()
