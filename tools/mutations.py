"""Breaks the package, one line at a time, and says which break a test has noticed.

    python tools/mutations.py
    python tools/mutations.py --only=MixStyle

Each break of `tools/breaks.py` is made in a copy of the package; the named test, which passes
without it, must fail. The table is printed in Markdown, with the tests that noticed: the fast ones,
which `pytest` runs, or the slow ones. The exit code is 1 if a break was not noticed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from breaks import BREAKS, Break

ROOT = Path(__file__).resolve().parent.parent


def noticed(broken: Break, copy: Path) -> str:
    """Which tests fail in a copy of the repository with the break, which is then mended.

    "fast" are those that `pytest` runs, "slow" the others; "NO": none.
    """
    file = copy / broken.file
    text = file.read_text(encoding="utf-8")
    if text.count(broken.line) != 1:
        raise SystemExit(f"{broken.file} must hold once: {broken.line}")
    file.write_text(text.replace(broken.line, broken.broken), encoding="utf-8")
    try:
        for speed, markers in (("fast", "not slow and not thorough"), ("slow", "slow or thorough")):
            if fails(broken, copy, markers):
                return speed
    finally:
        file.write_text(text, encoding="utf-8")
    return "NO"


def fails(broken: Break, copy: Path, markers: str) -> bool:
    """Whether the test, with these markers, fails."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-m", markers]
    done = subprocess.run(
        [*pytest, f"tests/{broken.test}", *(["-k", broken.cases] if broken.cases else [])],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1, 5):  # 5: there is no test with these markers
        raise SystemExit(f"{broken.test} could not be run:\n{done.stdout[-2000:]}{done.stderr}")
    return done.returncode == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="Breaks with this in their words.")
    parser.add_argument("--jobs", type=int, default=2, help="Copies that are broken at a time.")
    given = parser.parse_args()
    wanted = [each for each in BREAKS if given.only in each.what]
    if not wanted:
        parser.error(f"--only is part of what is broken in words: no break has {given.only!r}")
    print("| broken | test | noticed by |\n| --- | --- | --- |")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue[Path] = Queue()
        for number in range(given.jobs):
            copies.put(copied(Path(folder) / str(number)))

        def one(broken: Break) -> str:
            copy = copies.get()
            try:
                return noticed(broken, copy)
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(given.jobs) as pool:
            for broken, speed in zip(wanted, pool.map(one, wanted), strict=True):
                found.append(speed)
                print(f"| {broken.what} | `{broken.test}` | {speed} |", flush=True)
    fast, missed = found.count("fast"), found.count("NO")
    print(f"\n{len(found) - missed} of {len(found)} were noticed, {fast} by the fast tests")
    sys.exit(missed > 0)


def copied(copy: Path) -> Path:
    """A copy of what the tests need."""
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "runs", "data", "*.egg*"))
    shutil.copytree(ROOT / "keras_reid" / "data", copy / "keras_reid" / "data")
    return copy


if __name__ == "__main__":
    main()
