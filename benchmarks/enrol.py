"""Rows a second of `search.py enrol EMBEDDINGS`, from Parquet files into each kind of gallery.

    python benchmarks/enrol.py
    python benchmarks/enrol.py --rows=100000 --width=1280

Random embeddings in the format of `embed.py` are enrolled durably into new galleries. The peers are
reading the Parquet files only, and Milvus Lite's client, which inserts key, name, identity and
embedding of the same rows and flushes once. All take turns, and medians are printed. Needs `pip
install ".[gallery,scale]"`.
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
from keras_reid.scale.creation import create
from keras_reid.scale.listing import ImageEntry

SHARD = 8192


def written(folder: Path, rows: int, width: int) -> scale.Shards:
    """Embeddings of length 1 of persons with 25 images each."""
    random = np.random.default_rng(0)
    images = (
        ImageEntry(f"/crops/{row // 25:07}/{row % 25:02}.jpg", f"{row // 25:07}", str(row % 6))
        for row in range(rows)
    )
    about = {"images": "drawn", "shard_size": SHARD, "flip": False, "fingerprint": "drawn"}
    shards = create(folder, images, SHARD, about)
    for number, size in enumerate(shards.sizes):
        x = random.standard_normal((size, width), np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        shards.write(number, shards.listed(number), np.arange(size), x, [""] * size)
    return shards


def reading(shards: scale.Shards, place: str) -> None:
    for _ in shards:
        pass


def enrolling(shards: scale.Shards, place: str) -> None:
    with redirect_stdout(io.StringIO()):
        search(SearchOptions(gallery=place, words=("enrol", str(shards.folder))))


def client_alone(shards: scale.Shards, place: str) -> None:
    """Insert by the client of Milvus Lite, a lower bound for every program that uses it."""
    from pymilvus import DataType, MilvusClient

    client = MilvusClient(place)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    for name in ("image", "identity"):
        schema.add_field(name, DataType.VARCHAR, max_length=100)
    first = shards.read(0)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=first.embedding.shape[1])
    client.create_collection("people", schema=schema)
    for number, shard in enumerate(shards):
        rows = zip(shard.path, shard.identity, shard.embedding, strict=True)
        records = [
            {"id": number * SHARD + i, "image": str(a), "identity": str(b), "embedding": x}
            for i, (a, b, x) in enumerate(rows)
        ]
        for start in range(0, len(records), 2048):
            client.insert("people", records[start : start + 2048])
    client.flush("people")
    client.close()


KINDS = {
    "reading alone": (reading, "{}"),
    "file": (enrolling, "file:{}"),
    "Milvus Lite": (enrolling, "{}.db"),
    "Milvus Lite, its client alone": (client_alone, "{}-alone.db"),
}


def main() -> None:
    """Print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        shards = written(Path(root) / "embeddings", options.rows, options.width)
        seconds: dict[str, list[float]] = {name: [] for name in KINDS}
        for turn in range(options.rounds):
            for name, (work, place) in KINDS.items():
                start = time.perf_counter()
                work(shards, place.format(f"{root}/people-{turn}"))
                seconds[name].append(time.perf_counter() - start)
    print(f"{options.rows:,} rows of {options.width} numbers, {options.rounds} rounds")
    for name, times in seconds.items():
        print(f"{name:<30}{options.rows / statistics.median(times):10,.0f} rows/s")


if __name__ == "__main__":
    main()
