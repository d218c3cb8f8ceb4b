"""Retention of freed memory in commands."""

import os
import platform
import subprocess
import sys

import pytest

FREED = """
import os, sys
import numpy as np
from keras_reid.cli.memory import keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

if sys.argv[1] == "keep":
    keep_memory()
before = resident()
block = np.ones(2**25, np.float32)
del block
print(resident() - before)
"""


def left(mode, **variables):
    """MiB that stay with a process which has freed 128."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | variables
    command = [sys.executable, "-c", FREED, mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_keep_memory_freed_block_stays_unless_trim_threshold_is_set():
    assert left("keep") > 120
    assert left("leave") < 8
    assert left("keep", MALLOC_TRIM_THRESHOLD_="131072") < 8


def test_keep_memory_c_library_without_mallopt_does_nothing(monkeypatch):
    from keras_reid.cli import memory

    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    asked = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: asked.append(name) or object())
    memory.keep_memory()
    assert asked == [None]
