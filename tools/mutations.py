"""Apply each deliberate fault of `tools/breaks.py` and report whether its named test fails.

    python tools/mutations.py
    python tools/mutations.py --only=MixStyle

Each fault changes one place in a copy of the repository. Its named test, which passes without the
fault, must fail. TensorFlow is imported once, and each test runs in a fork of that process. The
result is a Markdown table. The exit code is 1 if a fault was missed.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from breaks import BREAKS, Break

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 600  # per test
NOTICED, MISSED = "noticed", "MISSED"
RESULTS = {0: MISSED, 1: NOTICED, 5: "MISSED: no test of that name is run"}


def results(faults: list[Break], folder: Path, jobs: int) -> Iterator[tuple[Break, str]]:
    """Yield each fault with its result, in the order of completion."""
    waiting, running = faults[::-1], {}
    free = [copied(folder / str(number)) for number in range(jobs)]
    while waiting or running:
        while waiting and free:
            fault, copy = waiting.pop(), free.pop()
            text = applied(fault, copy)
            running[forked_test(fault, copy)] = (fault, copy, text)
        pid, status = os.wait()
        fault, copy, text = running.pop(pid)
        (copy / fault.file).write_text(text, encoding="utf-8")
        free.append(copy)
        code = os.waitstatus_to_exitcode(status)
        if code not in RESULTS:
            print((copy / "output.txt").read_text(errors="replace")[-2000:], file=sys.stderr)
        yield fault, RESULTS.get(code, f"MISSED: exit code {code}")


def copied(copy: Path) -> Path:
    """Copy the files that the tests need, without bytecode."""
    ignored = shutil.ignore_patterns(".git", "runs", "*.egg*", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    return copy


def applied(fault: Break, copy: Path) -> str:
    """Write the fault into the copy and return the file's text without it."""
    file = copy / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.line) != 1:
        raise SystemExit(f"{fault.file} must contain this text exactly once: {fault.line}")
    file.write_text(text.replace(fault.line, fault.broken), encoding="utf-8")
    return text


def forked_test(fault: Break, copy: Path) -> int:
    """Run the named test of a fault in a fork and return the fork's process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 3
    try:
        output = os.open(copy / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(copy)
        # Two versions of a file that are written in one second may have the same bytecode.
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(copy))
        os.environ.update(
            PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1", KERAS_REID_REAL_DATA=str(real_data())
        )
        signal.alarm(SECONDS)
        cases = ["-k", fault.cases] if fault.cases else []
        options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "-m", "not nightly"]
        code = int(pytest.main([*options, f"tests/{fault.test}", *cases]))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def real_data() -> Path:
    """Return the folder of real images that the tests use."""
    return Path(os.environ.get("KERAS_REID_REAL_DATA", ROOT / "../shared")).resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="Text that the fault's description contains.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Number of processes.")
    options = parser.parse_args()
    faults = [each for each in BREAKS if options.only in each.what]
    if not faults:
        parser.error(f"--only must be part of a fault's description, got {options.only!r}")
    start, missed = time.monotonic(), 0
    print("| fault | test | result |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for fault, result in results(faults, Path(folder), options.jobs):
            missed += result != NOTICED
            print(f"| {fault.what} | `{fault.test}` | {result} |", flush=True)
    minutes = (time.monotonic() - start) / 60
    print(f"\n{len(faults) - missed} of {len(faults)} faults noticed in {minutes:.1f} minutes")
    sys.exit(missed > 0)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    # Imported before the forks. The package itself is imported from the copy.
    import keras  # noqa: F401
    import pytest
    import sklearn.cluster  # noqa: F401
    import tensorflow  # noqa: F401

    main()
