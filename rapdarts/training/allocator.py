"""How the C library hands memory back to the system, which training on a CPU is better off without."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4
"""Numbers of glibc's mallopt (malloc.h)."""


def keep_freed_memory() -> bool:
    """Lets this process keep what it frees: a training step asks for the same gigabytes again at once.

    Otherwise glibc returns every large tensor to the system, and each page of the next one is fetched and zeroed
    anew, which can take a third of a step. Gives whether the C library could be told.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # not glibc
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
