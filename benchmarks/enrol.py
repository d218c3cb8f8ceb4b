"""Rows a second of `search.py enrol EMBEDDINGS`, from Parquet files into each kind of gallery.

    python benchmarks/enrol.py
    python benchmarks/enrol.py --rows=100000 --width=1280

Drawn embeddings are written as `embed.py` writes them, and enrolled into new galleries, which are
durable then. Reading the Parquet files alone is measured beside it; the kinds take turns, medians
are printed. Needs `pip install ".[gallery,scale]"`.
"""

import argparse
import io
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

from keras_reid import scale
from keras_reid.cli.search import SearchOptions, search
from keras_reid.scale.listing import Listed
from keras_reid.scale.shards import create

SHARD = 8192


def written(folder: Path, rows: int, width: int) -> scale.Shards:
    """Embeddings of length 1 of persons with 25 images each."""
    random = np.random.default_rng(0)
    images = (
        Listed(f"/crops/{row // 25:07}/{row % 25:02}.jpg", f"{row // 25:07}", str(row % 6))
        for row in range(rows)
    )
    about = {"images": "drawn", "shard_size": SHARD, "flip": False, "fingerprint": "drawn"}
    shards = create(folder, images, SHARD, about)
    for number, size in enumerate(shards.sizes):
        x = random.standard_normal((size, width), np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        shards.write(number, shards.listed(number), np.arange(size), x)
    return shards


def main() -> None:
    """Prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        shards = written(Path(root) / "embeddings", options.rows, options.width)
        kinds = {"reading alone": "", "faiss": "faiss:{}.faiss", "Milvus Lite": "{}.db"}
        seconds: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(options.rounds):
            for name, uri in kinds.items():
                start = time.perf_counter()
                if not uri:
                    sum(len(shard.path) for shard in shards)
                else:
                    gallery = uri.format(f"{root}/people-{turn}")
                    words = ("enrol", str(shards.folder))
                    with redirect_stdout(io.StringIO()):
                        search(SearchOptions(gallery=gallery, words=words))
                seconds[name].append(time.perf_counter() - start)
    print(f"{options.rows:,} rows of {options.width} numbers, {options.rounds} rounds")
    for name, times in seconds.items():
        print(f"{name:<14}{options.rows / statistics.median(times):10,.0f} rows/s")


if __name__ == "__main__":
    main()
