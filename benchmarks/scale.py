"""Embedding many files: `embed.py` by one process and by two, against a loop over `model.predict`.

    python benchmarks/scale.py --images=FOLDER
    python benchmarks/scale.py --copies=20

Each contestant is started as a user starts it and embeds all files; images a second are counted
from the first shard that is whole to the last, so that imports and the first graph do not count.
Without --images pedestrians are drawn. Also printed is the memory of one process at a tenth, at
half and at the end of its images. Needs `pip install ".[scale]"`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_reid import scale
from keras_reid.data import synthetic

ROOT = Path(__file__).resolve().parent.parent
SHARD = 256
PLAIN = """
import sys, time
import numpy as np, tensorflow as tf
from keras_reid import models
paths = open(sys.argv[1]).read().split()
model = models.pretrained()
height, width = models.image_size(model)
stamps = []
for start in range(0, len(paths), {shard}):
    images = [tf.io.decode_jpeg(tf.io.read_file(p), 3) for p in paths[start : start + {shard}]]
    images = [tf.image.resize(i, (height, width), antialias=True) for i in images]
    model.predict(tf.cast(tf.round(tf.stack(images)), tf.uint8), batch_size=128, verbose=0)
    stamps.append(time.perf_counter())
print((len(stamps) - 1) * {shard} / (stamps[-1] - stamps[0]))
"""


def plain(listing: Path) -> float:
    """Return images per second of a loop that decodes and predicts in turn."""
    code = PLAIN.format(shard=SHARD)
    done = subprocess.run(
        [sys.executable, "-c", code, str(listing)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.splitlines()[-1])


def embedding(listing: Path, out: Path, processes: int) -> tuple[float, list[tuple[float, float]]]:
    """Return images per second, and (fraction done, GiB) of the first process over time."""
    table = listing.with_suffix(".csv")
    table.write_text("path\n" + listing.read_text())
    command = [sys.executable, str(ROOT / "embed.py"), f"--images={table}", f"--out={out}"]
    command.append(f"--shard_size={SHARD}")
    running = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(processes)
    ]
    memory = []
    total = -(-len(listing.read_text().split()) // SHARD)
    while any(process.poll() is None for process in running):
        time.sleep(0.2)
        done = len(list(out.glob("part-*.parquet")))
        status = Path(f"/proc/{running[0].pid}/statm")
        if done and status.exists():
            pages = int(status.read_text().split()[1])
            memory.append((done / total, pages * os.sysconf("SC_PAGE_SIZE") / 2**30))
    shards = scale.Shards(out)
    times = sorted(shards.file(number).stat().st_mtime for number in range(shards.count))
    # Of two processes the first shards are whole together.
    first = times[processes - 1]
    counted = sum(shards.sizes) - processes * SHARD
    return counted / (times[-1] - first), memory


def main() -> None:
    """Print medians and ratios of alternating rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder of JPEG files")
    parser.add_argument("--copies", type=int, default=10, help="of each file, to embed longer")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = options.images
        if source is None:
            synthetic.generate(Path(folder) / "drawn", 50, 50)
            source = Path(folder) / "drawn"
        files = sorted(str(file.absolute()) for file in source.rglob("*.jpg"))
        listing = Path(folder) / "files.txt"
        listing.write_text("\n".join(files * options.copies))
        found: dict[str, list[float]] = {"model.predict": [], "one": [], "two": []}
        memory = []
        for number in range(options.rounds):
            found["model.predict"].append(plain(listing))
            for name, count in (("one", 1), ("two", 2)):
                rate, seen = embedding(listing, Path(folder) / f"{name}-{number}", count)
                found[name].append(rate)
                memory = seen if name == "one" else memory
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    print(f"{len(files) * options.copies:,} images, {os.cpu_count()} cores")
    for name, rate in medians.items():
        ratio = rate / medians["model.predict"]
        print(f"{name:<14} {rate:7.1f} images/s, {ratio:.2f} of the loop over model.predict")
    fractions, gib = np.array(memory).T
    for part in (0.1, 0.5, 1.0):
        print(
            f"memory at {part:.0%} of the images: {gib[np.abs(fractions - part).argmin()]:.2f} GiB"
        )


if __name__ == "__main__":
    main()
