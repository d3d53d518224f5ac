"""Memory that a network's forward passes free is kept for the next ones."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""`M_TRIM_THRESHOLD` and `M_MMAP_THRESHOLD` of glibc's malloc.h."""
_MOST, _HALF_A_HEAP = 2**31 - 1, 32 * 2**20
_SET_BY_THE_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Tell glibc's allocator to keep what is freed, in place of giving it back to the system.

    A forward pass on a CPU frees tensors of some megabytes and asks for them again. By default glibc gives each of them
    back, and the system clears every page anew: a light network spends half of its time there (see
    `benchmarks/allocator.py`). The process keeps the memory of its largest moment instead, which itself can be larger:
    in glibc before 2.38 aligned allocations leave gaps.

    Nothing is changed for a process whose environment sets these thresholds (`MALLOC_TRIM_THRESHOLD_` and the like),
    nor under another C library. It is for programs, at their start; no import calls it.

    Returns:
        Whether the allocator was told.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SET_BY_THE_USER):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Earlier versions take no more than half of a heap. The threshold for trimming alone would make them slower.
    if not any(mallopt(_MMAP_THRESHOLD, most) for most in (_MOST, _HALF_A_HEAP)):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _MOST))
