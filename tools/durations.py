"""Sum the durations that pytest printed, per file and per test, as Markdown tables.

pytest --durations=0 --durations-min=0 > fast.txt
pytest -m "slow and not nightly" --durations=0 --durations-min=0 > slow.txt
python tools/durations.py fast=fast.txt slow=slow.txt
"""

import argparse
import re
from collections import Counter
from pathlib import Path

LINE = re.compile(r"^([\d.]+)s (setup|call|teardown) +tests/(\S+?)::(\w+)", re.MULTILINE)


def sums(text: str) -> tuple[Counter[str], Counter[str]]:
    """Return the seconds and the number of cases of each file and of each test."""
    seconds: Counter[str] = Counter()
    cases: Counter[str] = Counter()
    for duration, phase, file, test in LINE.findall(text):
        for name in (file, f"{file}::{test}"):
            seconds[name] += float(duration)
            cases[name] += phase == "call"
    return seconds, cases


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("outputs", nargs="+", metavar="GROUP=FILE", help="Outputs of pytest.")
    parser.add_argument("--top", type=int, default=15, help="Number of rows of each table.")
    options = parser.parse_args()
    for group, file in (each.split("=", 1) for each in options.outputs):
        seconds, cases = sums(Path(file).read_text(encoding="utf-8", errors="replace"))
        files = {name for name in seconds if "::" not in name}
        total = sum(seconds[name] for name in files)
        count = sum(cases[name] for name in files)
        print(f"{group}: {count:,} cases, {total:.0f} s\n")
        print(f"| {group} | cases | s |\n| --- | --- | --- |")
        for kind in (files, seconds.keys() - files):
            for name in sorted(kind, key=lambda name: -seconds[name])[: options.top]:
                print(f"| `{name}` | {cases[name]} | {seconds[name]:.1f} |")
        print()


if __name__ == "__main__":
    main()
