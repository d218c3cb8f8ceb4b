"""What is freed stays with the process."""

import ctypes
import os

# The parameters of mallopt, as malloc.h numbers them.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
MOST = 2**31 - 1


def keep_memory() -> None:
    """Keeps freed memory for the next operation, where the C library is glibc.

    By default blocks of megabytes, such as feature maps, go back to the system when an operation
    ends, and the next one waits for pages that the system clears. Whoever set a variable MALLOC_…
    has decided otherwise.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return
    for parameter, value in ((ARENA_MAX, 1), (MMAP_MAX, 0), (TRIM_THRESHOLD, MOST)):
        mallopt(parameter, value)
