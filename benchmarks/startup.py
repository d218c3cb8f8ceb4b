"""Start-up time of the commands, with ONNX Runtime and with Keras, against imports of packages.

    python benchmarks/startup.py
    python benchmarks/startup.py --rounds=7

The commands take turns, each in a separate process, on files that the system has read before.
Medians of seconds and of processor time are printed, and the ratio of the seconds to those of the
same command with `--runtime=keras`. On a busy machine, compare the processor times. The
gallery holds 1,008 synthetic pedestrians. `enrol`, `embed` and `track` embed 16 images or frames.
Needs `pip install ".[gallery,tracking,scale]"`.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from keras_reid.data import synthetic

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("train", "evaluate", "export", "search", "cluster", "track", "embed")
GALLERY, NEW = "--gallery=file:people.db", "--gallery=file:new{}.db"
TRACKED = ("--source=frames", "--detections=boxes.txt")
KERAS = ", --runtime=keras"
FEW = 16
GOALS = {"search.py query": 2.5, "search.py enrol": 3, "embed.py": 3, "track.py": 4}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="parts of names, such as query,embed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        query = draw(Path(folder))
        commands = {
            "import numpy": ["-c", "import numpy"],
            "import tensorflow": ["-c", "import tensorflow"],
            "import tensorflow, keras": ["-c", "import tensorflow, keras"],
            **{f"{name}.py --help": [script(name), "--help"] for name in NAMES},
            "search.py stats": [script("search"), GALLERY, "stats"],
        }
        for label, flags in (("", []), (KERAS, ["--runtime=keras"])):
            commands |= {
                f"search.py query{label}": [script("search"), GALLERY, *flags, "query", query],
                f"search.py verify{label}": [script("search"), *flags, "verify", query, query],
                f"search.py enrol{label}": [script("search"), NEW, *flags, "enrol", "few"],
                f"embed.py{label}": [script("embed"), *flags, "--images=few", "--out=new{}"],
                f"track.py{label}": [script("track"), *flags, *TRACKED, "--out=new{}.txt"],
            }
        words = options.only.split(",")
        commands = {k: v for k, v in commands.items() if any(word in k for word in words)}
        run(folder, [script("search"), GALLERY, "enrol", "people"])
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for turn in range(options.rounds + 1):
            for number, (name, command) in enumerate(commands.items()):
                taken = run(folder, [word.replace("{}", f"{turn}-{number}") for word in command])
                if turn:  # the first reads files that the system then keeps
                    times[name].append(taken)
    medians = {k: [*map(statistics.median, zip(*v, strict=True))] for k, v in times.items()}
    for name, (middle, cpu) in medians.items():
        goal = f" (goal {GOALS[name]} s)" if name in GOALS else ""
        keras = medians.get(name + KERAS)
        ratio = f", Keras takes {keras[0] / middle:.1f} times as long" if keras else ""
        print(f"{name:<34}{middle:6.2f} s, {cpu:5.2f} s of processor time{goal}{ratio}")


def draw(root: Path) -> str:
    """Draw the images of the gallery, of a few persons and of a video; return a query image."""
    synthetic.generate(root / "drawn", 84, 2, cameras=3, images_per_camera=4)
    for number, image in enumerate(sorted((root / "drawn/bounding_box_train").glob("*.jpg"))):
        for folder in ("people", "few") if number < FEW else ("people",):
            target = root / folder / image.name[:4] / image.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(image.read_bytes())
    (root / "frames").mkdir()
    lines = []
    for number in range(1, FEW + 1):
        Image.new("RGB", (320, 240), (90, 90, 90)).save(root / f"frames/{number:03d}.png")
        lines.append(f"{number},-1,{100 + number},60,40,110,1")
    (root / "boxes.txt").write_text("\n".join(lines) + "\n")
    return str(next((root / "drawn/query").glob("*.jpg")))


def script(name: str) -> str:
    return str(ROOT / f"{name}.py")


def run(folder: str, command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command takes, and its processor time."""
    start, used = time.perf_counter(), processor_time()
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=False,
    )
    if ended.returncode not in (0, 1):  # absl's help ends with 1
        raise SystemExit(ended.stderr.decode())
    return time.perf_counter() - start, processor_time() - used


def processor_time() -> float:
    """Return the seconds of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
