"""Reuse of freed memory within a process."""

import ctypes
import os

# The parameters of mallopt, as malloc.h numbers them.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
MOST = 2**31 - 1


def keep_memory() -> None:
    """Keep freed memory for the next operation, if the C library is glibc.

    By default glibc returns blocks of megabytes, such as feature maps, to the system, and the next
    operation waits for pages that the system clears. A variable MALLOC_… in the environment
    disables this function.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    for parameter, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, MOST)):
        mallopt(parameter, value)
