"""Enroll, search and remove for a long time, and check the memory use.

`python tests/soak.py FOLDER [SECONDS]`: each type of gallery in a separate process, ten minutes by
default. The resident memory at the end may be an eighth more than after the first quarter.
"""

import os
import resource
import subprocess
import sys
import time

import numpy as np

from keras_reid import gallery

KINDS = {"memory": "memory:", "faiss": "faiss:{}/soak.faiss", "milvus": "{}/soak.db"}
PEOPLE, EACH, WIDTH = 2, 200, 64
GROWTH = 1.125
LEAST = 4  # rounds


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def soak(uri: str, seconds: float) -> tuple[int, list[int]]:
    """Return the number of rounds and the resident memory after each."""
    chance, sizes = np.random.default_rng(0), []
    end = time.monotonic() + seconds
    names = np.repeat([f"p{i}" for i in range(PEOPLE)], EACH).tolist()
    with gallery.open(uri, approximate_from=300) as people:
        people.enrol(chance.standard_normal((50, WIDTH)), ["stays"] * 50, model_fingerprint="m")
        while time.monotonic() < end or len(sizes) < LEAST:
            x = chance.standard_normal((len(names), WIDTH))
            people.enrol(x, names, model_fingerprint="m")
            hits = people.search(x[:50], 3)
            assert [found[0].identity for found in hits] == names[:50]
            for name in sorted({*names}):
                assert people.remove(name) == EACH
            assert people.count() == 50
            sizes.append(resident())
    return len(sizes), sizes


def main() -> None:
    folder, seconds = sys.argv[1], float(sys.argv[2]) if sys.argv[2:] else 600.0
    if sys.argv[3:]:
        rounds, sizes = soak(KINDS[sys.argv[3]].format(folder), seconds)
        before, after = max(sizes[: rounds // 4 + 1]), sizes[-1]
        words = f"{before / 2**20:.0f} MiB after a quarter, {after / 2**20:.0f} at the end"
        print(f"{sys.argv[3]:<7} {rounds:,} rounds of {PEOPLE * EACH} rows, {words}")
        assert after <= GROWTH * before, words
        return
    for kind in KINDS:
        command = [sys.executable, __file__, folder, str(seconds), kind]
        if subprocess.run(command, check=False, env=os.environ).returncode:
            sys.exit(f"{kind} grows")


if __name__ == "__main__":
    main()
