"""Start-up time of the commands: help, a count and one query, against imports of other packages.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds=7

The commands take turns, each in a separate process, on files that the system has read before;
medians of seconds are printed. The gallery holds drawn pedestrians, embedded by the model that
comes with the package. Needs `pip install ".[gallery]"`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keras_reid.data import synthetic

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("train", "evaluate", "export", "search", "cluster", "track", "embed")
GALLERY = "--gallery=file:people.db"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        synthetic.generate(Path(folder) / "drawn", 4, 2, cameras=2)
        images = Path(folder) / "drawn/bounding_box_train"
        for image in sorted(images.glob("*.jpg")):
            (Path(folder) / "people" / image.name[:4]).mkdir(parents=True, exist_ok=True)
            image.rename(Path(folder) / "people" / image.name[:4] / image.name)
        query = str(next((Path(folder) / "drawn/query").glob("*.jpg")))
        commands = {
            "import numpy": ["-c", "import numpy"],
            "import tensorflow": ["-c", "import tensorflow"],
            "import tensorflow, keras": ["-c", "import tensorflow, keras"],
            **{f"{name}.py --help": [str(ROOT / f"{name}.py"), "--help"] for name in NAMES},
            "search.py stats": [str(ROOT / "search.py"), GALLERY, "stats"],
            "search.py query": [str(ROOT / "search.py"), GALLERY, "query", query],
        }
        run(folder, [str(ROOT / "search.py"), GALLERY, "enrol", "people"])
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(options.rounds + 1):
            for name, command in commands.items():
                taken = run(folder, command)
                if turn:  # the first reads files that the system then keeps
                    seconds[name].append(taken)
    for name, times in seconds.items():
        print(f"{name:<26}{statistics.median(times):6.2f} s")


def run(folder: str, command: list[str]) -> float:
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    if ended.returncode not in (0, 1):  # absl's help ends with 1
        raise SystemExit(ended.stderr.decode())
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
