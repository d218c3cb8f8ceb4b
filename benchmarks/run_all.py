"""Measure all rows of the table in benchmarks/README.md and write the table.

    python benchmarks/run_all.py
    python benchmarks/run_all.py --only=search
    python benchmarks/run_all.py --video=street.avi --ground_truth=gt.txt

Each row runs another script of this folder and reads its lines `NAME  NUMBER UNIT`. The table is
written between the two markers of README.md, with the machine and the versions. `--only` prints the
rows with these words in their name and writes nothing. Tracking is measured on a video with
detections, if there is one. Run it on an idle machine; it takes about an hour.
"""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
MARKERS = "<!-- written by run_all.py -->\n", "<!-- end of the table of run_all.py -->"
PACKAGES = ("tensorflow", "keras", "numpy", "onnxruntime", "faiss-cpu", "torch")
RATES = ("images/s", "queries/s", "frames/s")  # units in which more is better
UNITS = (*RATES, "ms/step", "s")
UNIT = "|".join(UNITS)
# Name, number and unit; or the first two columns of a table, a name and frames/s.
LINE = re.compile(rf"^\W*(\w.*?)(?: {{2,}}| \| )([\d,.]+)(?: ({UNIT})\b| \|)", re.MULTILINE)


class Row(NamedTuple):
    """Row of the table: a command, and the names of the two lines that are compared."""

    name: str
    command: str
    ours: str
    peer: str


class Measured(NamedTuple):
    """Number of a line, and its unit."""

    number: float
    unit: str

    def __str__(self) -> str:
        digits = 0 if self.number >= 100 else 1 if self.number >= 10 else 2
        return f"{self.number:,.{digits}f} {self.unit}"


SEARCH = "gallery.py --rows=200000 --rounds=3"
TRACKING = "tracking_speed.py --every 0 5"
ROWS = (
    Row("embedding of files", "embedding.py --images=512", "commands", "ONNX Runtime, Pillow"),
    Row("start-up and one query", "startup.py", "search.py query", "import tensorflow, keras"),
    Row("re-ranking, 800 × 4,000", "reranking.py --repeats=2 --peers=dense", "ours", "dense"),
    Row("exact search, 200,000 rows", SEARCH, "exact", "faiss flat"),
    Row("approximate search, 200,000 rows", SEARCH, "approximate", "faiss flat"),
    Row("training step, ResNet50", "training.py --compare_torch", "ReidModel.fit", "torch"),
    Row("training step, MobileNetV2", "training.py --compare_fit", "ReidModel.fit", "bare step"),
    Row(
        "tracking, detector on every 5th frame",
        TRACKING,
        "every 5. frame",
        "all windows, no threads",
    ),
)


def lines(output: str) -> dict[str, Measured]:
    """Return the numbers of the printed lines by name."""
    return {
        name: Measured(float(number.replace(",", "")), unit or "frames/s")
        for name, number, unit in LINE.findall(output)
    }


def table_line(row: Row, measured: dict[str, Measured]) -> str:
    """Return the row in Markdown; the ratio is the speed relative to the peer."""
    if missing := {row.ours, row.peer} - measured.keys():
        found = ", ".join(measured) or "none"
        sys.exit(f"{row.command} must print lines of {', '.join(missing)}, got {found}.")
    ours, peer = measured[row.ours], measured[row.peer]
    ratio = ours.number / peer.number if ours.unit in RATES else peer.number / ours.number
    command = f"`python benchmarks/{row.command}`"
    return f"| {row.name} | {command} | {ours} | {row.peer} | {peer} | **{ratio:.2f}** |"


def run(command: str, further: list[str]) -> dict[str, Measured]:
    """Run a script, print its output and return its lines."""
    script, *flags = shlex.split(command)
    called = [sys.executable, str(HERE / script), *flags, *further]
    ended = subprocess.run(called, stdout=subprocess.PIPE, text=True, check=True)
    print(ended.stdout, flush=True)
    return lines(ended.stdout)


def machine() -> str:
    """Return processor, cores, system and versions."""
    cpus = Path("/proc/cpuinfo")
    text = cpus.read_text() if cpus.exists() else ""
    names = re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE)
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    system = f"{platform.system()}, Python {platform.python_version()}"
    name = names[0] if names else platform.processor()
    return f"{name}, {os.cpu_count()} cores, {system}, {', '.join(versions)}."


def written(page: str, body: str) -> str:
    """Return the page with the text between the markers replaced."""
    begin, end = MARKERS
    before, _, rest = page.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{README} must have the markers {begin.strip()} and {end}.")
    return f"{before}{begin}{body}{end}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="words in the names of the rows")
    parser.add_argument("--video", help="video for tracking")
    parser.add_argument("--ground_truth", help="MOT file of its tracks")
    options = parser.parse_args()
    video = [f"--video={options.video}", f"--ground_truth={options.ground_truth}"]
    results: dict[str, dict[str, Measured]] = {}
    table = [
        "| | command | keras_reid | peer | of the peer | ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        tracks = row.command == TRACKING
        if options.only not in row.name or (tracks and not options.video):
            continue
        if row.command not in results:
            results[row.command] = run(row.command, video if tracks else [])
        table.append(table_line(row, results[row.command]))
    body = "\n".join([machine(), "", *table, ""])
    print(body)
    if not options.only:
        README.write_text(written(README.read_text("utf-8"), f"\n{body}\n"), "utf-8")


if __name__ == "__main__":
    main()
